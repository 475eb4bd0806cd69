//! The streams of gateways.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use echotune_api::demand::{Demand, Hello, Reports, ServerName, Update, Updates};
use echotune_model::{Call, ErrorKind, Fault};
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Board, Gateways};
use crate::{lease::Leads, metrics::Metrics};

/// Messages that wait for a gateway that is slow to read.
const AHEAD: usize = 4;

/// Takes what gateways report, and tells them of servers.
#[derive(Clone)]
pub struct Exchange {
    /// What they report.
    pub gateways: Arc<Gateways>,
    /// What they are told.
    pub board: Arc<Board>,
    /// Whether this process leads.
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
        if !self.leads.any() {
            return Err(away("this replica of the operator does not lead"));
        }
        let (send, mut receive) = mpsc::channel(AHEAD);
        let exchange = self.clone();
        tokio::spawn(async move {
            let ended = exchange.carry(hello, reports, &send).await;
            if let Err(fault) = ended {
                // The gateway may be gone already.
                let _gone = send.send(Err(fault)).await;
            }
        });
        Ok(stream::poll_fn(move |context| receive.poll_recv(context)).boxed())
    }
}

impl Exchange {
    /// Until the gateway ends, or this process must.
    async fn carry(
        &self,
        hello: Hello,
        mut reports: Reports,
        send: &mpsc::Sender<Result<Update, Fault>>,
    ) -> Result<(), Fault> {
        let mut changes = self.board.changes();
        let mut leads = self.leads.clone();
        let mut seen = 0;
        loop {
            changes.mark_unchanged();
            while let Some((update, upto)) = self.board.since(seen).map_err(|_| away("too much was missed"))? {
                seen = upto;
                if send.send(Ok(update)).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                report = reports.next() => match report {
                    Some(report) => self.take(&hello, report),
                    None => return Ok(()),
                },
                _ = changes.changed() => {}
                () = leads.lost() => return Err(away("this replica of the operator leads no more")),
                () = self.stop.cancelled() => return Err(away("the operator ends")),
                () = send.closed() => return Ok(()),
            }
        }
    }

    fn take(&self, hello: &Hello, report: echotune_api::demand::Report) {
        self.metrics.reported();
        for (server, waits) in self.gateways.report(hello, report, Instant::now()) {
            (self.touched)(server, waits);
        }
    }
}
