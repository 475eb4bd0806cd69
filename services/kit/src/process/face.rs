//! The gRPC face of a program: its services behind one edge, with health and reflection.

use std::{convert::Infallible, io};

use futures::Stream;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    body::Body,
    server::NamedService,
    transport::{
        Server,
        server::{Connected, Router},
    },
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::{
    Service,
    layer::util::{Identity, Stack},
};

use super::Failure;
use crate::{edge::Edge, lifecycle::Life};

/// A server, and what says whether it serves.
pub struct Face {
    router: Router<Stack<Edge, Identity>>,
    health: Health,
}

/// What health checks are told.
pub struct Health {
    reporter: HealthReporter,
    /// Of each service, and of the whole.
    names: Vec<&'static str>,
}

impl Health {
    async fn set(&self, status: ServingStatus) {
        for name in &self.names {
            self.reporter.set_service_status(*name, status).await;
        }
    }
}

impl Face {
    /// Health and reflection behind `edge`, not yet said to serve. `descriptors` is an encoded `FileDescriptorSet` of all
    /// services.
    ///
    /// # Errors
    /// The descriptors are none.
    pub fn new(edge: Edge, descriptors: &'static [u8]) -> Result<Self, Failure> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .build_v1()?;
        let router = Server::builder().layer(edge).add_service(health).add_service(reflection);
        Ok(Self { router, health: Health { reporter, names: vec![""] } })
    }

    /// With one service more.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.health.names.push(S::NAME);
        self.router = self.router.add_service(service);
        self
    }

    /// Answers on connections that come in until the drain, and then what is under way; says that it serves until
    /// it is to end.
    pub async fn answer<C>(
        self,
        life: &mut Life,
        name: &'static str,
        incoming: impl Stream<Item = io::Result<C>> + Send + 'static,
    ) where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let Self { router, health } = self;
        health.set(ServingStatus::Serving).await;
        let drain = life.drain().cancelled_owned();
        life.server(name, async move { router.serve_with_incoming_shutdown(incoming, drain).await });
        let (not_ready, drain) = (life.not_ready(), life.drain());
        life.server("the health report", async move {
            not_ready.cancelled().await;
            health.set(ServingStatus::NotServing).await;
            drain.cancelled().await;
            Ok::<_, Infallible>(())
        });
    }
}
