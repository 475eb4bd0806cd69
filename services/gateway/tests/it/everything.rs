//! The server of the example that the conformance suite is run with.

#[path = "../../examples/conformance/asks.rs"]
pub(crate) mod asks;
#[path = "../../examples/conformance/catalogue.rs"]
pub(crate) mod catalogue;
#[path = "../../examples/conformance/fixture.rs"]
pub(crate) mod fixture;
