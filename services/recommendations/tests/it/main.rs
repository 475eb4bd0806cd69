//! recommendations as its callers meet it: the store by its port, the service as an object and over gRPC.

mod calls;
mod consumer;
mod experiments;
mod files;
mod friends;
mod history;
mod lists;
mod mapped;
mod names;
mod private;
mod store;
mod world;
