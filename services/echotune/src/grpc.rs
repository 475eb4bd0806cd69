//! The gRPC face of a platform: all services behind one edge.

use std::sync::Arc;

use echotune_api::{
    Agents, DeadLetters, Experiments, Models, Operations, Recommendations, Training, Users, agents_server,
    dead_letters_server, experiments_server, models_server, operations_server, recommendations_server, training_server,
    users_server,
};
use echotune_kit::{
    edge::Edge,
    process::{Face, Failure},
};

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
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
}

impl Services {
    /// All of them behind `edge`.
    pub(crate) fn behind(&self, edge: &Edge) -> Result<Face, Failure> {
        let Self { users, recommendations, experiments, models, training, agents, operations, dead_letters } =
            self.clone();
        let face = Face::new(edge.clone(), echotune_api::FILE_DESCRIPTOR_SET)?;
        let face = face.with(users_server(users)).with(recommendations_server(recommendations));
        let face = face.with(experiments_server(experiments)).with(training_server(training));
        let face = face.with(models_server(models)).with(agents_server(agents)).with(operations_server(operations));
        Ok(face.with(dead_letters_server(dead_letters)))
    }
}
