//! The order of start and stop: not ready, drain, stop consumers, flush, exit code.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use echotune_model::ErrorKind;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Signals that are held until somebody asks: the first stops, the second ends at once.
const SIGNALS: usize = 4;

/// The first pause before work that failed is taken up again, doubled up to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What consumers have for their end at the least, however long servers took: they give back what others wait for.
const LEAST: Duration = Duration::from_secs(10);

/// Whether it is worth to try again what ended by this.
pub trait Passing: fmt::Display {
    /// What a caller can do about it.
    fn kind(&self) -> ErrorKind;

    /// Whether servers that are away for a while can be the cause.
    fn is_passing(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Indeterminate)
    }
}

/// Takes up work again that ended because servers were away, until it ends by itself, for another cause, or when told to
/// stop. The work must go on where it was.
///
/// # Errors
/// Why it cannot go on.
pub async fn persist<E: Passing, F>(
    name: &'static str,
    stop: CancellationToken,
    mut work: impl FnMut() -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let mut pause = PAUSES.0;
    loop {
        let began = Instant::now();
        match work().await {
            Err(cause) if cause.is_passing() => {
                if began.elapsed() > PAUSES.1 {
                    pause = PAUSES.0;
                }
                tracing::warn!(%cause, ?pause, "{name} is interrupted and goes on after a pause");
            }
            ended => return ended,
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// What asks the process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Signal {
    /// The exit code of a process that this signal ended: 128 and the signal's number.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 143,
            Self::Interrupt => 130,
        }
    }
}

/// Signals of this process, from now on.
///
/// # Errors
/// The operating system refuses to hand them over.
pub fn signals() -> std::io::Result<mpsc::Receiver<Signal>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = mpsc::channel(SIGNALS);
    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                Some(()) = terminate.recv() => Signal::Terminate,
                Some(()) = interrupt.recv() => Signal::Interrupt,
                () = sender.closed() => return,
            };
            // When the queue is full, enough is known.
            if sender.try_send(signal).is_err() {
                tracing::debug!("more signals than are read");
            }
        }
    });
    Ok(receiver)
}

/// How long the way down may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Between "not ready" and taking no more requests.
    pub notice: Duration,
    /// For the servers to answer what is under way, and for the consumers to end in what is left of it, who have ten
    /// seconds whatever is left: whoever kills what has not ended by then counts it once.
    pub drain: Duration,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// Asked to stop; everything ended in its time.
    Clean,
    /// These failed or had to be cut off; each with the reason.
    Failed(Vec<String>),
    /// A second signal came: the caller must end the process without waiting for anything.
    Now(Signal),
}

impl Exit {
    /// The exit code of the process.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed(_) => 1,
            Self::Now(signal) => signal.exit_code(),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.write_str("stopped"),
            Self::Failed(why) => f.write_str(&why.join("; ")),
            Self::Now(_) => f.write_str("ended at once: a second signal came"),
        }
    }
}

type Ended = (&'static str, Result<(), String>);

/// One group of named tasks that stop together.
#[derive(Default)]
struct Group {
    stop: CancellationToken,
    tasks: JoinSet<Ended>,
    running: Vec<(&'static str, AbortHandle)>,
}

impl Group {
    fn spawn<E: fmt::Display>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(async move { (name, task.await.map_err(|cause| format!("{cause:#}"))) });
        self.running.push((name, handle));
    }

    /// The next task that ends; never when there is none.
    async fn next(&mut self) -> Ended {
        match self.tasks.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(cause)) => ("a task", Err(cause.to_string())),
            None => std::future::pending().await,
        }
    }

    /// Asks all to stop, waits until the deadline, cuts off the rest.
    async fn end(&mut self, deadline: Instant, failures: &mut Vec<String>) {
        self.stop.cancel();
        while !self.tasks.is_empty() {
            match timeout_at(deadline, self.next()).await {
                Ok((_, Ok(()))) => {}
                Ok((name, Err(cause))) => failures.push(format!("{name} failed: {cause}")),
                Err(_) => {
                    let left = self.running.iter().filter(|(_, task)| !task.is_finished());
                    failures.extend(left.map(|(name, _)| format!("{name} did not end in time and was cut off")));
                    self.tasks.shutdown().await;
                }
            }
        }
    }
}

type Flush = (&'static str, Box<dyn FnOnce() -> Result<(), String> + Send>);

/// The life of one instance. Passed along, never static: two instances in a process have two.
pub struct Life {
    patience: Patience,
    started_at: SystemTime,
    asked: CancellationToken,
    not_ready: CancellationToken,
    servers: Group,
    consumers: Group,
    flushes: Vec<Flush>,
}

impl Life {
    /// A life that begins now.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            started_at: SystemTime::now(),
            asked: CancellationToken::new(),
            not_ready: CancellationToken::new(),
            servers: Group::default(),
            consumers: Group::default(),
            flushes: Vec::new(),
        }
    }

    /// When it began.
    pub const fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// Cancel it to go down as after a signal.
    pub fn asked(&self) -> CancellationToken {
        self.asked.clone()
    }

    /// Cancelled first: from then on readiness must be denied.
    pub fn not_ready(&self) -> CancellationToken {
        self.not_ready.clone()
    }

    /// Cancelled second: servers take no more requests and answer those under way.
    pub fn drain(&self) -> CancellationToken {
        self.servers.stop.clone()
    }

    /// Cancelled third, when the servers are gone: consumers and other background work end.
    pub fn stop(&self) -> CancellationToken {
        self.consumers.stop.clone()
    }

    /// Runs a server that ends after [`Life::drain`].
    pub fn server<E: fmt::Display>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.servers.spawn(name, task);
    }

    /// Runs background work that ends after [`Life::stop`].
    pub fn consumer<E: fmt::Display>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.consumers.spawn(name, task);
    }

    /// Does something last, where blocking is allowed; it must bound its own time.
    pub fn at_end(&mut self, name: &'static str, flush: impl FnOnce() -> Result<(), String> + Send + 'static) {
        self.flushes.push((name, Box::new(flush)));
    }

    /// Done when a task has ended although nobody asked it to, with what is to be said of it.
    pub async fn failed(&mut self) -> String {
        let (name, outcome) = tokio::select! {
            ended = self.servers.next() => ended,
            ended = self.consumers.next() => ended,
        };
        let why = outcome.err().unwrap_or_else(|| "it ended although nobody asked it to".to_owned());
        format!("{name} failed: {why}")
    }

    /// Goes down now, in order.
    pub async fn end(self) -> Exit {
        self.asked.cancel();
        let (_none, signals) = mpsc::channel(1);
        self.until(signals).await
    }

    /// Lives until a signal comes, somebody asks or a task ends, then goes down in order. A second signal returns
    /// [`Exit::Now`] at once, from wherever the way down is.
    pub async fn until(mut self, mut signals: mpsc::Receiver<Signal>) -> Exit {
        let mut failures = Vec::new();
        let failed = tokio::select! {
            Some(_) = signals.recv() => None,
            () = self.asked.clone().cancelled_owned() => None,
            failed = self.failed() => Some(failed),
        };
        failures.extend(failed);
        tokio::select! {
            () = self.down(&mut failures) => {}
            Some(second) = signals.recv() => return Exit::Now(second),
        }
        if failures.is_empty() { Exit::Clean } else { Exit::Failed(failures) }
    }

    async fn down(&mut self, failures: &mut Vec<String>) {
        self.not_ready.cancel();
        tokio::time::sleep(self.patience.notice).await;
        let deadline = Instant::now() + self.patience.drain;
        self.servers.end(deadline, failures).await;
        let least = Instant::now() + self.patience.drain.min(LEAST);
        self.consumers.end(deadline.max(least), failures).await;
        for (name, flush) in self.flushes.drain(..) {
            match tokio::task::spawn_blocking(flush).await {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => failures.push(format!("{name} failed: {cause}")),
                Err(cause) => failures.push(format!("{name} failed: {cause}")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
