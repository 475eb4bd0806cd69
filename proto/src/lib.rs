//! The contracts of EchoTune as Rust types, generated from the `.proto` files beside this crate.
//!
//! Only `echotune-api` and `echotune-eventlog` adapters see these types; everything behind them
//! works with the types of `echotune-model`.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]

/// The file descriptor set of every package, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Accounts, listens and play counts.
pub mod users {
    pub mod v1 {
        tonic::include_proto!("echotune.users.v1");
    }
}
/// Recommendations and their reasons.
pub mod recommendations {
    pub mod v1 {
        tonic::include_proto!("echotune.recommendations.v1");
    }
}
/// Durable runs of workflows.
pub mod agents {
    pub mod v1 {
        tonic::include_proto!("echotune.agents.v1");
    }
}
/// The envelope and payloads of events.
pub mod events {
    pub mod v1 {
        tonic::include_proto!("echotune.events.v1");
    }
}
/// What runs, and traces.
pub mod operations {
    pub mod v1 {
        tonic::include_proto!("echotune.operations.v1");
    }
}
/// Demand for MCP servers, and where they are.
pub mod operator {
    pub mod v1 {
        tonic::include_proto!("echotune.operator.v1");
    }
}
