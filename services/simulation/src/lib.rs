//! Simulated regions of the platform: the real services of three regions in one thread, on a network, disks and clocks that
//! a seed decides ([turmoil](https://docs.rs/turmoil)). All of it are tests, in `tests/it/`.
//!
//! *Real* are users with their store, keys and erasures (`echotune-users`), the relay of the outbox, both consumers
//! (`echotune-recommendations`, `echotune-agents`) with their stores, the embedded log, the embedded store with its
//! transactions (redb), the gRPC edge, servers and clients, and how a region passes a write on to another
//! (`Ways`).
//!
//! *Simulated* are the network (cut both ways or one way, held back, slow), hosts that die and start again with what their
//! disks hold, with and without a failure of the power, wall clocks that differ, and how long a disk takes, so that a host
//! can die before each write, and between each and its answer. What copies the logs of other regions (MirrorMaker 2) is
//! a task here, which delivers again what it had not noted, and whose copies forget with the record that tells of an
//! erasure, as sealed ones do when their key is gone.
//!
//! *Not simulated* are the stores on CQL servers and the log on Kafka, and with them agreeing on homes, fail-over and
//! moves (`echotune-users`, module `region`, whose rules have their own model): where somebody is at home is told
//! by the name. `cargo xtask faults` has these on real servers, without a seed that decides everything.
//!
//! A seed decides what fails, when, for how long, what the network and the disks take, and what clients ask. It does not
//! decide all: ids of accounts, and by them the order of what is sorted, are random, as is the branch by which
//! `tokio::select!` begins. So a seed that fails is likely to fail again, at another moment; the history of what was seen
//! is kept.
