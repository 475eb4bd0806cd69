//! A gateway between real clients and real servers: over HTTP and as child processes, of both eras.

mod access;
mod bad;
mod beside;
mod catalogue;
#[cfg(target_os = "linux")]
mod confined;
mod crowded;
mod eras;
mod errors;
mod everything;
mod fixture;
mod hosted;
mod house;
mod killed;
mod ledger;
mod lists;
mod missed;
mod operator;
mod pods;
#[cfg(feature = "region")]
mod program;
mod recovery;
mod regions;
mod replaced;
mod sessions;
mod shards;
mod stopping;
mod subscriptions;
mod takeover;
mod tokens;
mod traces;
