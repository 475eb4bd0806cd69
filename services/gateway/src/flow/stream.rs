use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use http::StatusCode;
use tokio::sync::Notify;

use crate::message::Json;

/// What goes back to a client in the course of one request: messages, and the one that ends it. A reader that went away
/// can come back for what it has not seen, where its revision knows of that.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: Mutex<Inner>,
    told: Notify,
    most: usize,
    is_kept: bool,
}

#[derive(Debug, Default)]
struct Inner {
    frames: VecDeque<Frame>,
    /// Place of the first frame that is held.
    first: u64,
    /// How many were read by whoever read furthest.
    read: u64,
    bytes: usize,
    is_done: bool,
    readers: u64,
    /// Whether it is kept for who comes back, as far as that is known, and whether that was counted.
    is_listed: bool,
    is_shelved: bool,
    is_forgotten: bool,
}

/// A message and, when it is the last, with which status it would be answered alone.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) message: Json,
    pub(crate) last: Option<Ending>,
}

/// How a request is answered whose only message is its last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) status: StatusCode,
    /// In seconds.
    pub(crate) retry_after: Option<u32>,
}

impl From<StatusCode> for Ending {
    fn from(status: StatusCode) -> Self {
        Self { status, retry_after: None }
    }
}

/// More waits to be read than may.
#[derive(Debug)]
pub(crate) struct Flooded;

impl Stream {
    /// A stream of which at most `most` bytes wait; read ones stay there for who comes back when it `is_kept`.
    pub(crate) fn new(most: usize, is_kept: bool) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), told: Notify::new(), most, is_kept })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, frame: Frame) -> Result<(), Flooded> {
        self.with(|inner| {
            if inner.is_done {
                return Ok(());
            }
            let ends = frame.last.is_some();
            // What was read already gives way first.
            while inner.bytes + frame.message.bytes().len() > self.most && inner.first < inner.read {
                inner.drop_first();
            }
            // The end is told always: it is bounded by itself.
            if !ends && inner.bytes + frame.message.bytes().len() > self.most {
                return Err(Flooded);
            }
            inner.bytes += frame.message.bytes().len();
            inner.is_done = ends;
            inner.frames.push_back(frame);
            Ok(())
        })?;
        self.told.notify_waiters();
        Ok(())
    }

    /// Adds a message.
    pub(crate) fn push(&self, message: Json) -> Result<(), Flooded> {
        self.add(Frame { message, last: None })
    }

    /// Adds the last message.
    pub(crate) fn finish(&self, message: Json, ending: impl Into<Ending>) {
        self.add(Frame { message, last: Some(ending.into()) }).expect("the last one is taken always");
    }

    /// Ends it without a message.
    pub(crate) fn close(&self) {
        self.with(|inner| inner.is_done = true);
        self.told.notify_waiters();
    }

    /// Takes note that it is kept for who comes back.
    pub(crate) fn keep(&self) {
        self.with(|inner| inner.is_listed = true);
    }

    /// Its bytes, once, when it has ended and is kept.
    pub(super) fn shelved(&self) -> Option<usize> {
        self.with(|inner| {
            let is_due = inner.is_listed && inner.is_done && !inner.is_shelved;
            inner.is_shelved |= is_due;
            is_due.then_some(inner.bytes)
        })
    }

    /// Lets go of all that is in it.
    pub(super) fn forget(&self) {
        self.with(|inner| {
            inner.is_forgotten = true;
            while !inner.frames.is_empty() {
                inner.drop_first();
            }
        });
        self.told.notify_waiters();
    }

    /// Whether what stood from a place on was let go.
    pub(crate) fn has_lost(&self, from: u64) -> bool {
        self.with(|inner| inner.is_forgotten && from < inner.first)
    }

    /// Reads from a place on; whoever read before is ended, for no message goes to two.
    pub(crate) fn read(self: &Arc<Self>, from: u64) -> Reader {
        let turn = self.with(|inner| {
            inner.readers += 1;
            inner.readers
        });
        self.told.notify_waiters();
        Reader { stream: Arc::clone(self), at: from, turn }
    }

    /// Waits for the first message.
    pub(crate) async fn begun(&self) {
        loop {
            let told = self.told.notified();
            if self.with(|inner| !inner.frames.is_empty() || inner.is_done) {
                return;
            }
            told.await;
        }
    }

    /// The message that ends it, when there is no other.
    pub(crate) fn only(&self) -> Option<Frame> {
        self.with(|inner| match inner.frames.front() {
            Some(frame) if inner.first == 0 && frame.last.is_some() => Some(frame.clone()),
            _ => None,
        })
    }
}

impl Inner {
    fn drop_first(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.message.bytes().len();
            self.first += 1;
        }
    }
}

/// Who reads a stream.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: Arc<Stream>,
    at: u64,
    turn: u64,
}

enum Next {
    Frame(u64, Frame),
    Wait,
    End,
}

impl Reader {
    /// The next message with its place; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<(u64, Frame)> {
        loop {
            let stream = Arc::clone(&self.stream);
            let told = stream.told.notified();
            match self.look() {
                Next::Frame(at, frame) => return Some((at, frame)),
                Next::End => return None,
                Next::Wait => told.await,
            }
        }
    }

    fn look(&mut self) -> Next {
        let is_kept = self.stream.is_kept;
        let turn = self.turn;
        let mut at = self.at;
        let next = self.stream.with(|inner| {
            if inner.readers != turn {
                return Next::End;
            }
            at = at.max(inner.first);
            let place = usize::try_from(at - inner.first).unwrap_or(usize::MAX);
            match inner.frames.get(place).cloned() {
                Some(frame) => {
                    inner.read = inner.read.max(at + 1);
                    if !is_kept {
                        (0..=place).for_each(|_| inner.drop_first());
                    }
                    Next::Frame(at, frame)
                }
                None if inner.is_done => Next::End,
                None => Next::Wait,
            }
        });
        if let Next::Frame(place, _) = next {
            self.at = place + 1;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: Option<(u64, Frame)>) -> Option<(u64, String)> {
        frame.map(|(at, frame)| (at, format!("{:?}", frame.message)))
    }

    #[tokio::test]
    async fn who_comes_back_reads_what_it_has_not_seen_and_who_was_there_is_ended() {
        let stream = Stream::new(1_000, true);
        stream.push(Json::of("a")).expect("room");
        stream.push(Json::of("b")).expect("room");
        let mut first = stream.read(0);
        assert_eq!(text(first.next().await), Some((0, "\"a\"".to_owned())));
        let mut second = stream.read(1);
        assert!(first.next().await.is_none());
        assert_eq!(text(second.next().await), Some((1, "\"b\"".to_owned())));
        stream.finish(Json::of("c"), StatusCode::OK);
        assert_eq!(text(second.next().await), Some((2, "\"c\"".to_owned())));
        assert!(second.next().await.is_none());
        assert_eq!(text(stream.read(2).next().await), Some((2, "\"c\"".to_owned())), "again");
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_the_end_is_told_all_the_same() {
        for is_kept in [true, false] {
            let stream = Stream::new(10, is_kept);
            stream.push(Json::of("12345")).expect("room");
            assert!(stream.push(Json::of("12345")).is_err());
            let mut reader = stream.read(0);
            assert!(reader.next().await.is_some());
            stream.push(Json::of("12345")).expect("room for it when the other was read");
            stream.finish(Json::of("a long last one"), StatusCode::OK);
            assert_eq!(text(reader.next().await), Some((1, "\"12345\"".to_owned())));
            assert_eq!(text(reader.next().await), Some((2, "\"a long last one\"".to_owned())));
        }
    }
}
