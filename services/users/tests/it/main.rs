//! users as its callers meet it: the store by its port, the service as an object and over gRPC.

mod access;
mod events;
mod faces;
mod held;
mod serve;
mod store;
mod suite;
