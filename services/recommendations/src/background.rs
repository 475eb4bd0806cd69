//! What goes on beside serving.

use std::{convert::Infallible, time::Duration};

use echotune_api::events::{RECOMMENDATIONS, USERS_TOPIC};
use echotune_eventlog::EventLog;
use echotune_kit::{
    lifecycle::{Life, persist},
    telemetry::metrics::{self, Meter},
};

use crate::{RecommendationsService, consume, refit, report_drift, watch_experiments};

/// How often it is looked whether an experiment has found enough.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is told how far serving is from the fit.
const TELL_DRIFT_EVERY: Duration = Duration::from_secs(60);

impl RecommendationsService {
    /// Follows what happens to histories, and has models fitted anew `debounce` after they changed. Jobs of models end
    /// when `life` does: they hold the store.
    pub fn follow(&self, life: &mut Life, log: impl EventLog + Clone + 'static, debounce: Duration) {
        let (service, stop) = (self.clone(), life.stop());
        let consuming = move || {
            let (service, log, stop) = (service.clone(), log.clone(), stop.clone());
            async move { consume(service, &log, stop).await }
        };
        let name = "the consumer of histories";
        life.consumer(name, persist(name, life.stop(), consuming));
        let (service, stop) = (self.clone(), life.stop());
        life.consumer("the refits of the models", async move {
            refit(service, debounce, stop).await;
            Ok::<_, Infallible>(())
        });
        let (service, stop) = (self.clone(), life.stop());
        life.consumer("the jobs of models", async move {
            stop.cancelled().await;
            service.end_jobs().await;
            Ok::<_, Infallible>(())
        });
    }

    /// Looks after experiments, and tells a collector of drift and of how far events were applied. Only where something
    /// stays.
    pub fn watch(&self, life: &mut Life, log: impl EventLog + 'static, meter: &Meter) {
        self.pace().tell(life, log, (USERS_TOPIC, RECOMMENDATIONS), None, meter);
        life.consumer("the watch on experiments", watch_experiments(self.clone(), LOOK_EVERY, life.stop()));
        let gauge = meter.gauge(metrics::DRIFT);
        if gauge.is_sent() {
            let (service, stop) = (self.clone(), life.stop());
            life.consumer("the report of drift", async move {
                report_drift(service, gauge, TELL_DRIFT_EVERY, stop).await;
                Ok::<_, Infallible>(())
            });
        }
    }
}
