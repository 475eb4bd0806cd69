//! The streams of gateways.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use echotune_api::demand::{Demand, Hello, Reports, ServerName, Update, Updates};
use echotune_model::{Call, ErrorKind, Fault};
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Shard, Shards};
use crate::{lease::Leads, metrics::Metrics};

/// Messages that wait for a gateway that is slow to read.
const AHEAD: usize = 4;

/// Takes what gateways report, and tells them of servers.
#[derive(Clone)]
pub struct Exchange {
    /// What they report and are told.
    pub shards: Arc<Shards>,
    /// What this process leads.
    pub leads: Leads,
    /// Who is told of servers with demand, and whether a call waits there.
    pub touched: Arc<dyn Fn(ServerName, bool) + Send + Sync>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// When it ends.
    pub stop: CancellationToken,
}

fn away(why: &str) -> Fault {
    Fault::new(ErrorKind::Unavailable, format!("{why}; connect again"))
}

#[async_trait]
impl Demand for Exchange {
    async fn exchange(&self, _call: &Call, hello: Hello, reports: Reports) -> Result<Updates, Fault> {
        let count = self.shards.count();
        if hello.shards != count {
            let told = Update { shards: count, ..Update::default() };
            let ended = away(&format!("servers are in {count} shards, and not in {}", hello.shards));
            return Ok(stream::iter([Ok(told), Err(ended)]).boxed());
        }
        let Some(shard) = self.shards.get(hello.shard.into()).cloned() else {
            return Err(Fault::invalid(format!("there is no shard {} of {count}", hello.shard)));
        };
        if !self.leads.has(hello.shard.into()) {
            return Err(away("this replica of the operator does not lead"));
        }
        let (send, mut receive) = mpsc::channel(AHEAD);
        let exchange = self.clone();
        tokio::spawn(async move {
            let ended = exchange.carry(&shard, hello, reports, &send).await;
            if let Err(fault) = ended {
                // The gateway may be gone already.
                let _gone = send.send(Err(fault)).await;
            }
        });
        Ok(stream::poll_fn(move |context| receive.poll_recv(context)).boxed())
    }
}

impl Exchange {
    /// Until the gateway ends, or this process must. What it reports is taken however slowly it reads what it is told:
    /// a call that waits must not wait for that.
    async fn carry(
        &self,
        shard: &Shard,
        hello: Hello,
        reports: Reports,
        send: &mpsc::Sender<Result<Update, Fault>>,
    ) -> Result<(), Fault> {
        tokio::select! {
            told = shard.tell(send) => told,
            () = self.hear(shard, &hello, reports) => Ok(()),
            () = self.leads.lost(hello.shard.into()) => Err(away("this replica of the operator leads no more")),
            () = self.stop.cancelled() => Err(away("the operator ends")),
            () = send.closed() => Ok(()),
        }
    }

    /// Takes what a gateway reports, until it ends.
    async fn hear(&self, shard: &Shard, hello: &Hello, mut reports: Reports) {
        while let Some(report) = reports.next().await {
            self.take(shard, hello, report);
        }
    }

    fn take(&self, shard: &Shard, hello: &Hello, report: echotune_api::demand::Report) {
        self.metrics.reported();
        for (server, waits) in shard.gateways.report(hello, report, Instant::now()) {
            (self.touched)(server, waits);
        }
    }
}

impl Shard {
    /// Tells a gateway of what changes, until it ends.
    async fn tell(&self, send: &mpsc::Sender<Result<Update, Fault>>) -> Result<(), Fault> {
        let mut changes = self.board.changes();
        let mut seen = 0;
        loop {
            changes.mark_unchanged();
            while let Some((update, upto)) = self.board.since(seen).map_err(|_| away("too much was missed"))? {
                seen = upto;
                if send.send(Ok(update)).await.is_err() {
                    return Ok(());
                }
            }
            // The board is there for as long as this is.
            let _changed = changes.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use echotune_api::demand::{ClassDemand, Report, ServerDemand};

    use super::*;
    use crate::testing::served;

    fn name(text: &str) -> ServerName {
        text.parse().expect("a server")
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_reads_nothing_is_heard_all_the_same() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heard);
        let exchange = Exchange {
            shards: Arc::new(Shards::new(1, Duration::from_secs(60), Duration::ZERO, Instant::now())),
            leads: Leads::none(1),
            touched: Arc::new(move |server, waits| noted.lock().expect("nobody panicked").push((server, waits))),
            metrics: Arc::new(Metrics::default()),
            stop: CancellationToken::new(),
        };
        let shard = exchange.shards.of(&name("m/a"));
        shard.board.post(&name("m/a"), Some(served("m/a")));
        let class = ClassDemand { queued: 1, arrivals: 1, ..ClassDemand::default() };
        let server = ServerDemand {
            server: name("m/a"),
            classes: vec![class],
            cold_calls: 1,
            sessions: 0,
            pods: Vec::new(),
            regions: Vec::new(),
        };
        let report = Report { time_ms: 1, servers: vec![server] };
        let hello = Hello { gateway: "g".into(), region: String::new(), incarnation: 1, shard: 0, shards: 1 };
        // There is room for none of what it is told.
        let (send, _unread) = mpsc::channel(1);
        send.send(Ok(Update::default())).await.expect("room for one");
        let hearing = exchange.hear(shard, &hello, stream::iter([report]).boxed());
        tokio::select! {
            told = shard.tell(&send) => panic!("it cannot have been told: {told:?}"),
            () = hearing => {}
        }
        assert_eq!(*heard.lock().expect("nobody panicked"), [(name("m/a"), true)]);
    }
}
