//! The protocol over the standard input and output of a child.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Ask, Failed, Said, cancelled,
    changes::Changes,
    process::{self, Running},
};
use crate::{
    config::{ProcessConfig, Sharing},
    message::{Json, Message, Object, Outcome, Revision},
    refusal::METHOD_NOT_FOUND,
};

/// Lines that wait for a child to read them.
const LINES: usize = 256;
/// What a request may have been told before it looks; notifications beyond are dropped.
const SAYINGS: usize = 256;
/// How long the output of a child that has ended is still read.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Of a line of standard error that is logged, in bytes.
const ERROR_LINE: u64 = 2 << 10;

/// A child that speaks the protocol. When the last who holds it lets go, it is ended.
pub(crate) struct Child {
    name: String,
    lines: mpsc::Sender<Bytes>,
    state: Arc<State>,
    end: CancellationToken,
}

struct State {
    waiting: Mutex<BTreeMap<u64, mpsc::Sender<Said>>>,
    next: AtomicU64,
    gone: AtomicBool,
    /// It is ended when nobody waits for it any more.
    retiring: AtomicBool,
    /// Whether requests of several clients run at once, so that what it asks cannot be told to be for one of them.
    shared: bool,
    changes: Changes,
}

impl State {
    fn waiting<T>(&self, work: impl FnOnce(&mut BTreeMap<u64, mpsc::Sender<Said>>) -> T) -> T {
        work(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Child {
    /// Starts a child. Its tasks are of `tasks`.
    pub(crate) fn start(
        name: &str,
        config: &ProcessConfig,
        line_bytes: usize,
        changes: Changes,
        tasks: &TaskTracker,
    ) -> Result<Arc<Self>, Failed> {
        let cannot = |cause| Failed::not_sent(format!("'{}' cannot be started: {cause}", config.command.display()));
        let started = process::start(name, config).map_err(cannot)?;
        let state = Arc::new(State {
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            gone: AtomicBool::new(false),
            retiring: AtomicBool::new(false),
            shared: config.sharing == Sharing::All,
            changes,
        });
        let (lines, queue) = mpsc::channel(LINES);
        let end = CancellationToken::new();
        let stopped = CancellationToken::new();
        let reader = Reader { server: name.to_owned(), state: Arc::clone(&state), back: lines.downgrade(), line_bytes };
        tasks.spawn(write(started.input, queue, stopped.clone()));
        tasks.spawn(log(name.to_owned(), started.errors));
        tasks.spawn(watch(started.running, reader, started.output, end.clone(), stopped));
        Ok(Arc::new(Self { name: name.to_owned(), lines, state, end }))
    }

    /// Whether it can be asked no more.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.gone.load(Ordering::Acquire)
    }

    /// Whether a request is under way.
    pub(crate) fn is_asked(&self) -> bool {
        self.state.waiting(|waiting| !waiting.is_empty())
    }

    /// Ends it once the last request under way has ended.
    pub(crate) fn retire(&self) {
        self.state.retiring.store(true, Ordering::Release);
        self.end_if_idle();
    }

    fn end_if_idle(&self) {
        if self.state.retiring.load(Ordering::Acquire) && self.state.waiting(|waiting| waiting.is_empty()) {
            self.end.cancel();
        }
    }

    fn line(&self, message: &Json) -> Result<(), Failed> {
        let mut line = message.bytes().to_vec();
        // Within strings of JSON these are escaped: here they stand between parts, and would end the line.
        line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        line.push(b'\n');
        let sent = if self.is_gone() { None } else { self.lines.try_send(line.into()).ok() };
        sent.ok_or_else(|| Failed::not_sent(format!("the child of '{}' does not read what it is told", self.name)))
    }

    /// Sends a request whose answer is awaited.
    pub(crate) fn send(self: &Arc<Self>, ask: &Ask, revision: Revision) -> Result<ChildExchange, Failed> {
        let id = self.state.next.fetch_add(1, Ordering::Relaxed);
        let (sender, said) = mpsc::channel(SAYINGS);
        self.state.waiting(|waiting| waiting.insert(id, sender));
        let exchange = ChildExchange { child: Arc::clone(self), id, said, revision };
        // When it fails, the exchange takes itself out of those that wait.
        self.line(&ask.message(id, revision))?;
        Ok(exchange)
    }

    pub(crate) fn tell(&self, message: &Json) -> Result<(), Failed> {
        self.line(message)
    }
}

/// A request under way.
pub(crate) struct ChildExchange {
    child: Arc<Child>,
    id: u64,
    said: mpsc::Receiver<Said>,
    revision: Revision,
}

impl Drop for ChildExchange {
    fn drop(&mut self) {
        self.child.state.waiting(|waiting| waiting.remove(&self.id));
        self.child.end_if_idle();
    }
}

impl ChildExchange {
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) async fn next(&mut self) -> Result<Said, Failed> {
        let ended = || Failed::Cut(format!("the child of '{}' ended before its answer", self.child.name));
        self.said.recv().await.ok_or_else(ended)
    }

    pub(crate) async fn tell(&self, message: Json) -> Result<(), Failed> {
        self.child.line(&message)
    }

    pub(crate) async fn cancel(self, why: &str) {
        drop(self.child.line(&cancelled(self.id, why)));
    }
}

async fn write(mut input: ChildStdin, mut lines: mpsc::Receiver<Bytes>, stopped: CancellationToken) {
    let writing = async {
        while let Some(line) = lines.recv().await {
            if input.write_all(&line).await.is_err() {
                break;
            }
        }
    };
    // Then its input ends, which is how it is told to.
    stopped.run_until_cancelled(writing).await;
}

/// Standard error is the server's log, not ours: shown where it is looked for.
async fn log(server: String, errors: impl AsyncRead + Unpin) {
    let mut errors = BufReader::new(errors);
    loop {
        let mut line = Vec::new();
        match (&mut errors).take(ERROR_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tracing::debug!(server, "{}", String::from_utf8_lossy(line.trim_ascii_end()).escape_debug()),
        }
    }
}

/// Reads what a child says until it ends or is to end, and sees it to its end.
async fn watch(
    mut running: Running,
    reader: Reader,
    output: ChildStdout,
    end: CancellationToken,
    stopped: CancellationToken,
) {
    let (server, state) = (reader.server.clone(), Arc::clone(&reader.state));
    let mut reading = std::pin::pin!(reader.read(output));
    let why = tokio::select! {
        why = &mut reading => Some(why),
        status = running.ended() => {
            // What it said before is read; another that has its pipe must not keep it from being missed.
            drop(tokio::time::timeout(LAST_WORDS, &mut reading).await);
            Some(status.map_or_else(|cause| cause.to_string(), |status| status.to_string()))
        }
        () = end.cancelled() => None,
    };
    state.gone.store(true, Ordering::Release);
    // Those that wait learn that no answer comes.
    state.waiting(BTreeMap::clear);
    stopped.cancel();
    if let Some(why) = why {
        tracing::warn!(server, why, "a child of an MCP server ended by itself");
    }
    if let Err(cause) = running.end().await {
        tracing::warn!(server, %cause, "a child of an MCP server could not be waited for");
    }
}

struct Reader {
    server: String,
    state: Arc<State>,
    back: mpsc::WeakSender<Bytes>,
    line_bytes: usize,
}

impl Reader {
    /// Reads lines until they end; why they do.
    async fn read(&self, output: impl AsyncRead + Unpin) -> String {
        let mut output = BufReader::new(output);
        let most = self.line_bytes as u64;
        loop {
            let mut line = Vec::new();
            match (&mut output).take(most + 1).read_until(b'\n', &mut line).await {
                Ok(0) => return "it closed its output".to_owned(),
                Ok(_) if line.last() != Some(&b'\n') && line.len() as u64 > most => {
                    return format!("it wrote a line of more than {most} bytes");
                }
                Ok(_) => self.line(&Bytes::from(line)),
                Err(cause) => return format!("its output cannot be read: {cause}"),
            }
        }
    }

    fn line(&self, line: &Bytes) {
        match Message::read(line) {
            Ok(Message::Answer { id, outcome }) => self.answer(id.as_number(), outcome),
            Ok(Message::Notice { method, params }) => self.notice(method, params),
            Ok(Message::Request { id, method, params }) => {
                let asks = Said::Asks { id: id.clone(), method, params };
                if self.state.shared || !self.to_newest(asks) {
                    let error = Outcome::error(METHOD_NOT_FOUND, "no client is there to be asked");
                    let line = [error.message(&id).bytes(), b"\n"].concat();
                    drop(self.back.upgrade().map(|lines| lines.try_send(line.into())));
                }
            }
            // Some programs greet on standard output; the protocol forbids it, and no request was about it.
            Err(why) => tracing::debug!(server = self.server, ?why, "a child wrote what is no message"),
        }
    }

    fn answer(&self, id: Option<u64>, outcome: Outcome) {
        let waiting = id.and_then(|id| self.state.waiting(|waiting| waiting.remove(&id)));
        let Some(sender) = waiting else { return };
        if let Err(mpsc::error::TrySendError::Full(said)) = sender.try_send(Said::Answer(outcome)) {
            // It has not looked for long, but the answer is not lost on it.
            tokio::spawn(async move { sender.send(said).await });
        }
    }

    fn notice(&self, method: String, params: Option<Json>) {
        if self.state.changes.hear(&method, params.as_ref()) {
            return;
        }
        let of = Object::read_optional(params.as_ref()).unwrap_or_default();
        let token: Option<u64> = of.get("progressToken").and_then(Json::read);
        let notice = Said::Notice { method, params };
        match token {
            Some(id) => {
                let sender = self.state.waiting(|waiting| waiting.get(&id).cloned());
                drop(sender.map(|sender| sender.try_send(notice)));
            }
            None if !self.state.shared => {
                self.to_newest(notice);
            }
            None => {}
        }
    }

    /// Tells the request that came last: with one client, what a child says by itself is about that most likely.
    fn to_newest(&self, said: Said) -> bool {
        let newest = self.state.waiting(|waiting| waiting.last_key_value().map(|(_, sender)| sender.clone()));
        newest.is_some_and(|sender| sender.try_send(said).is_ok())
    }
}
