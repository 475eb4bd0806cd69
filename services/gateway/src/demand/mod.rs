//! What the operator is told of demand, and what it tells of servers.

use std::{sync::Arc, time::Duration};

use echotune_api::demand::{Demand, Hello};
use echotune_kit::config::Secret;
use futures::future::BoxFuture;

mod known;
mod link;
mod report;
mod served;

pub(crate) use self::link::follow;

/// How servers that the operator tells of are treated, beyond what it says of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodOptions {
    /// Calls of one server that wait for a place; those beyond are refused.
    pub queue: usize,
    /// How long one waits for its turn where there are pods.
    pub queue_wait: Duration,
    /// Calls of one caller at a server at once, waiting ones included.
    pub per_caller: usize,
    /// How long a call may take whose caller does not say.
    pub deadline: Duration,
    /// How long a call may take at the most, whatever its caller says.
    pub deadline_max: Duration,
    /// For how long lists are kept where a server does not say.
    pub lists_kept: Duration,
    /// The `authorization` header that pods want.
    pub authorization: Option<Secret>,
}

impl Default for PodOptions {
    fn default() -> Self {
        Self {
            queue: 1_024,
            queue_wait: Duration::from_secs(10),
            per_caller: 256,
            deadline: Duration::from_secs(60),
            deadline_max: Duration::from_secs(600),
            lists_kept: Duration::from_secs(5),
            authorization: None,
        }
    }
}

/// Finds out which replicas the operator has now, where demand is told and servers are learnt of. One of them leads a
/// shard of servers, and the others refuse to take streams of it.
pub type Replicas = Arc<dyn Fn() -> BoxFuture<'static, Vec<Arc<dyn Demand>>> + Send + Sync>;

/// The operator, as a gateway that follows it needs to know it.
#[derive(Clone)]
pub struct Operator {
    /// Asked whenever a stream is to be opened.
    pub replicas: Replicas,
    /// Who this replica is. Which shard a stream is of is said by each.
    pub hello: Hello,
    /// How its servers are treated.
    pub pods: PodOptions,
    /// For how long the gateway is not ready while the operator has not told of its servers yet.
    pub patience: Duration,
}
