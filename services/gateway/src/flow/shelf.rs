//! Streams that have ended and are kept for clients that come back, within a bound over all sessions: each session may
//! keep some, and there are many sessions.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::stream::Stream;

/// What a stream takes beside its messages, in bytes.
const EACH: usize = 512;

/// What has ended, in the order in which it has.
#[derive(Debug)]
pub(crate) struct Shelf {
    inner: Mutex<Inner>,
    most: usize,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: usize,
    kept: VecDeque<(usize, Weak<Stream>)>,
}

impl Shelf {
    /// At most `most` bytes, and always what has ended last.
    pub(crate) fn new(most: usize) -> Self {
        Self { inner: Mutex::default(), most }
    }

    /// Takes a stream that has ended and is kept; what ended first is forgotten for it. Any other is left alone.
    pub(crate) fn put(&self, stream: &Arc<Stream>) {
        let Some(bytes) = stream.shelved() else { return };
        let mut forgotten = Vec::new();
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.bytes += bytes + EACH;
            inner.kept.push_back((bytes + EACH, Arc::downgrade(stream)));
            while inner.bytes > self.most && inner.kept.len() > 1 {
                let Some((bytes, oldest)) = inner.kept.pop_front() else { break };
                inner.bytes -= bytes;
                forgotten.extend(oldest.upgrade());
            }
        }
        forgotten.iter().for_each(|stream| stream.forget());
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::message::Json;

    #[test]
    fn what_ended_first_is_forgotten_and_whoever_has_not_read_it_can_be_told() {
        let ended = |is_kept: bool| {
            let stream = Stream::new(1_000, true);
            if is_kept {
                stream.keep();
            }
            stream.finish(Json::of("text"), StatusCode::OK);
            stream
        };
        let shelf = Shelf::new(2 * (EACH + 10));
        let streams = [true; 3].map(ended);
        let other = ended(false);
        for stream in streams.iter().chain([&other]) {
            shelf.put(stream);
            // Once is enough.
            shelf.put(stream);
        }
        assert_eq!(streams.each_ref().map(|stream| stream.has_lost(0)), [true, false, false]);
        assert!(!streams[0].has_lost(1), "who has read it misses nothing");
        assert!(!other.has_lost(0));
        let large = Stream::new(1_000, true);
        large.keep();
        large.finish(Json::of(&"x".repeat(10 * EACH)), StatusCode::OK);
        shelf.put(&large);
        assert!(streams.iter().all(|stream| stream.has_lost(0)) && !large.has_lost(0), "the last is there always");
    }
}
