//! Replays traces of demand through EchoTune's autoscaler and through ports of those that others run, and compares what
//! callers waited with what the pods cost.
//!
//! [`trace`] reads demand, [`rule`] holds the rules that scale, [`sim`] plays one service against one rule under one
//! seed, and [`study`] does so for all of them and judges the difference. Nothing of it reads a clock: a replay comes
//! out the same with any number of threads.

pub mod command;
pub mod rule;
pub mod sim;
pub mod study;
pub mod trace;
