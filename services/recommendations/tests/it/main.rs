//! recommendations as its callers meet it: the store by its port, the service as an object and over gRPC.

mod calls;
mod consumer;
mod diversity;
mod experiments;
mod explicit;
mod files;
mod friends;
mod history;
mod lists;
mod mapped;
mod names;
mod private;
mod releases;
mod store;
#[cfg(feature = "mlflow")]
mod tracking;
mod training;
mod world;
