//! agents as its callers meet it: the store by its port, the service as an object and over gRPC, with
//! real MCP servers on the loopback.

mod bundled;
mod contract;
mod crash;
mod events;
mod faces;
mod faults;
mod files;
mod server;
mod stdio;
mod store;
mod suite;
mod traces;
