//! The operator against an API server on the loopback that does what it is told, and what it is told to do wrong.
#![allow(clippy::result_large_err, reason = "what is found instead of what is waited for is told once")]

mod ceilings;
mod cluster;
mod contending;
mod crds;
mod faults;
mod names;
mod objects;
mod selectors;
mod spilling;
mod stories;
mod urgent;
mod world;
