//! The servers as their clients see them: over HTTP in both eras, and over standard input and output.

mod edge;
mod eras;
mod house;
#[cfg(feature = "region")]
mod program;
mod stdio;
mod tools;
mod traces;
mod world;
