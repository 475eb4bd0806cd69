//! Durable runs of declared workflows.
