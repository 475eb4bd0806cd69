//! Replays traces of demand through EchoTune's autoscaler and through ports of those that others run, and compares what
//! callers waited with what the pods cost.
//!
//! [`trace`] reads demand, [`rule`] holds the rules that scale, and [`sim`] plays one service against one rule under one seed.
//! Nothing here reads a clock: a replay comes out the same on any machine and any number of threads.

pub mod rule;
pub mod sim;
pub mod trace;
