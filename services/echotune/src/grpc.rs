//! The gRPC face of a platform: all services behind one edge, with health and reflection.

use std::{convert::Infallible, io, sync::Arc};

use echotune_api::{
    Agents, Experiments, Models, Operations, Recommendations, Training, Users, agents_server, experiments_server,
    models_server, operations_server, recommendations_server, training_server, users_server,
};
use echotune_kit::{edge::Edge, lifecycle::Life};
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    server::NamedService,
    transport::{
        Server,
        server::{Connected, Router},
    },
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::layer::util::{Identity, Stack};

/// What answers.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) users: Arc<dyn Users>,
    pub(crate) recommendations: Arc<dyn Recommendations>,
    pub(crate) experiments: Arc<dyn Experiments>,
    pub(crate) training: Arc<dyn Training>,
    pub(crate) models: Arc<dyn Models>,
    pub(crate) agents: Arc<dyn Agents>,
    pub(crate) operations: Arc<dyn Operations>,
}

/// A server, and what says whether it serves.
pub(crate) struct Face {
    router: Router<Stack<Edge, Identity>>,
    health: Health,
}

/// What health checks are told.
struct Health {
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

const fn name_of<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}

impl Face {
    /// All services behind `edge`, not yet said to serve.
    pub(crate) fn new(edge: Edge, services: Services) -> anyhow::Result<Self> {
        let Services { users, recommendations, experiments, models, training, agents, operations } = services;
        let (reporter, health) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(echotune_api::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let (users, recommendations) = (users_server(users), recommendations_server(recommendations));
        let (agents, operations) = (agents_server(agents), operations_server(operations));
        let (experiments, models) = (experiments_server(experiments), models_server(models));
        let training = training_server(training);
        let names = vec![
            "",
            name_of(&users),
            name_of(&recommendations),
            name_of(&experiments),
            name_of(&training),
            name_of(&models),
            name_of(&agents),
            name_of(&operations),
        ];
        let router = Server::builder()
            .layer(edge)
            .add_service(health)
            .add_service(reflection)
            .add_service(users)
            .add_service(recommendations)
            .add_service(experiments)
            .add_service(training)
            .add_service(models)
            .add_service(agents)
            .add_service(operations);
        Ok(Self { router, health: Health { reporter, names } })
    }

    /// Answers on connections that come in until the drain, and then what is under way; says that it serves until
    /// it is to end.
    pub(crate) async fn answer<C>(
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
