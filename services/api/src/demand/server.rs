use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use echotune_model::{Call, ErrorKind, Fault};
use echotune_proto::operator::v1::{
    self as pb,
    demand_service_server::{DemandService, DemandServiceServer},
    exchange_request::Message,
};
use futures::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Demand, MAX_DEMAND_BYTES, Updates,
    bounds::{check_hello, check_report},
    convert::{hello_from_pb, report_from_pb, update_to_pb},
    types::{Hello, Report},
};
use crate::{convert::call_of, status::to_status};

/// How long a gateway has for its first message.
const HELLO: Duration = Duration::from_secs(10);
/// Replicas of gateways at the most, of each shard.
const MAX_GATEWAYS: usize = 1_000;

/// The streams that are open, one for each replica of the gateway and shard. Clones share them: all ways into one
/// program do.
#[derive(Debug, Clone, Default)]
pub struct DemandStreams(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    begun: u64,
    streams: HashMap<Key, (u64, oneshot::Sender<()>)>,
}

/// A shard, and the replica whose stream of it this is.
type Key = (u16, String);

/// The place of one stream, which it leaves when it ends.
struct Place {
    streams: DemandStreams,
    key: Key,
    number: u64,
}

impl DemandStreams {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for this replica and shard, and what tells that another stream has taken it.
    fn begin(&self, hello: &Hello) -> Result<(Place, oneshot::Receiver<()>), Fault> {
        let mut open = self.open();
        let key = (hello.shard, hello.gateway.clone());
        let others = open.streams.keys().filter(|(shard, _)| *shard == hello.shard).count();
        if others >= MAX_GATEWAYS && !open.streams.contains_key(&key) {
            let full = format!("{MAX_GATEWAYS} gateways report already, which is the limit");
            return Err(Fault::new(ErrorKind::ResourceExhausted, full));
        }
        open.begun += 1;
        let (number, (tell, told)) = (open.begun, oneshot::channel());
        if let Some((_, before)) = open.streams.insert(key.clone(), (number, tell)) {
            // One that has ended by itself needs to hear nothing.
            let _ended = before.send(());
        }
        Ok((Place { streams: self.clone(), key, number }, told))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        if open.streams.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            open.streams.remove(&self.key);
        }
    }
}

struct Server {
    demand: Arc<dyn Demand>,
    streams: DemandStreams,
}

/// The gRPC face of what takes demand. For gateways, which are known as operators.
pub fn demand_server(demand: Arc<dyn Demand>, streams: DemandStreams) -> DemandServiceServer<impl DemandService> {
    DemandServiceServer::new(Server { demand, streams })
        .max_decoding_message_size(MAX_DEMAND_BYTES)
        .max_encoding_message_size(MAX_DEMAND_BYTES)
}

#[async_trait]
impl DemandService for Server {
    type ExchangeStream = BoxStream<'static, Result<pb::ExchangeResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<pb::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        // The deadline is that of the beginning: a stream has none.
        let call = Call { deadline: None, ..call_of(&request)? };
        call.may_operate().map_err(|fault| to_status(&fault))?;
        let mut messages = request.into_inner();
        let hello = hello(&mut messages).await?;
        let (place, taken) = self.streams.begin(&hello).map_err(|fault| to_status(&fault))?;
        let (fail, failed) = oneshot::channel();
        let reports = reports(messages, fail);
        let updates = self.demand.exchange(&call, hello, reports).await.map_err(|fault| to_status(&fault))?;
        Ok(Response::new(Answer { updates, ended: ended(failed, taken), _place: place }.stream()))
    }
}

async fn hello(messages: &mut Streaming<pb::ExchangeRequest>) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO, messages.message()).await;
    let first = first.map_err(|_| Status::invalid_argument(format!("no hello came within {HELLO:?}")))??;
    match first.and_then(|first| first.message) {
        Some(Message::Hello(hello)) => {
            check_hello(&hello).map_err(|fault| to_status(&fault))?;
            Ok(hello_from_pb(hello))
        }
        _ => Err(Status::invalid_argument("the first message of a stream is 'hello', which says who reports")),
    }
}

fn report(message: pb::ExchangeRequest) -> Result<Report, Fault> {
    match message.message {
        Some(Message::Report(report)) => {
            check_report(&report)?;
            report_from_pb(report)
        }
        Some(Message::Hello(_)) => Err(Fault::invalid("'hello' came twice; open a stream for each replica")),
        None => Err(Fault::invalid("a message is neither 'hello' nor 'report'")),
    }
}

/// The reports of a stream until one cannot be taken, which `fail` is told of.
fn reports(messages: Streaming<pb::ExchangeRequest>, fail: oneshot::Sender<Status>) -> BoxStream<'static, Report> {
    let next = |(mut messages, fail): (Streaming<pb::ExchangeRequest>, oneshot::Sender<Status>)| async move {
        let status = match messages.message().await {
            Ok(None) => return None,
            Ok(Some(message)) => match report(message) {
                Ok(report) => return Some((report, (messages, fail))),
                Err(fault) => to_status(&fault),
            },
            Err(status) => status,
        };
        // Nobody waits for it when the stream has ended meanwhile.
        let _ended = fail.send(status);
        None
    };
    stream::unfold((messages, fail), next).boxed()
}

/// Done when the stream must end early, with why. A sender that is gone says nothing.
fn ended(failed: oneshot::Receiver<Status>, taken: oneshot::Receiver<()>) -> BoxFuture<'static, Status> {
    let ended = async move {
        tokio::select! {
            Ok(status) = failed => status,
            Ok(()) = taken => Status::aborted("another stream of the same replica has begun"),
            else => std::future::pending().await,
        }
    };
    ended.boxed()
}

/// What a gateway is told, until its stream must end.
struct Answer {
    updates: Updates,
    ended: BoxFuture<'static, Status>,
    _place: Place,
}

impl Answer {
    fn stream(self) -> BoxStream<'static, Result<pb::ExchangeResponse, Status>> {
        let next = |answer: Option<Self>| async move {
            let mut answer = answer?;
            let told = tokio::select! {
                biased;
                status = &mut answer.ended => Err(status),
                update = answer.updates.next() => match update {
                    Some(update) => update.map(update_to_pb).map_err(|fault| to_status(&fault)),
                    // Updates may end because the reports did, by one that cannot be taken.
                    None => Err((&mut answer.ended).now_or_never()?),
                },
            };
            let rest = told.is_ok().then_some(answer);
            Some((told, rest))
        };
        stream::unfold(Some(self), next).boxed()
    }
}
