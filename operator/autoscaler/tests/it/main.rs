//! What holds for every decision, and how servers fare under them.
#![allow(missing_docs)]

mod check;
mod ledger;
mod policy;
mod properties;
mod stories;
mod world;
