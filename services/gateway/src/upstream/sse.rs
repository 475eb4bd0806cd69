//! Server-sent events as they are read from a server (WHATWG HTML, 9.2.6).

use axum::body::Bytes;

/// One event.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: Bytes,
}

/// Why a stream is not read further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Reads events from pieces of a stream.
#[derive(Debug)]
pub(crate) struct Parser {
    most: usize,
    line: Vec<u8>,
    event: Event,
    data: Vec<u8>,
    has_data: bool,
    after_return: bool,
    first: bool,
    /// How long to wait before coming back, in milliseconds, when the server said so.
    pub(crate) retry: Option<u64>,
}

impl Parser {
    /// Reads events of at most `most` bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            line: Vec::new(),
            event: Event::default(),
            data: Vec::new(),
            has_data: false,
            after_return: false,
            first: true,
            retry: None,
        }
    }

    /// Forgets the half event of a stream that broke.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self { retry: self.retry, ..Self::new(self.most) };
    }

    /// Takes a piece; the events that it completes.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        let mut rest = piece;
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (before, after) = rest.split_at(at);
            let return_then_feed = std::mem::take(&mut self.after_return) && at == 0 && after[0] == b'\n';
            self.after_return = after[0] == b'\r';
            rest = &after[1..];
            // The second half of a line's end.
            if return_then_feed {
                continue;
            }
            self.line.extend_from_slice(before);
            self.check()?;
            let line = std::mem::take(&mut self.line);
            events.extend(self.line(&line));
        }
        if !rest.is_empty() {
            self.after_return = false;
        }
        self.line.extend_from_slice(rest);
        self.check().map(|()| events)
    }

    fn check(&self) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() > self.most { Err(TooLong) } else { Ok(()) }
    }

    fn line(&mut self, line: &[u8]) -> Option<Event> {
        let line =
            if std::mem::take(&mut self.first) { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch();
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            b"id" if !value.contains(&0) => self.event.id = String::from_utf8(value.to_vec()).ok(),
            b"retry" => self.retry = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let told = std::mem::take(&mut self.has_data) || self.event.id.is_some();
        let data = std::mem::take(&mut self.data).into();
        let event = Event { data, ..std::mem::take(&mut self.event) };
        told.then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(id: Option<&str>, data: &'static str) -> Event {
        Event { id: id.map(str::to_owned), data: Bytes::from_static(data.as_bytes()) }
    }

    const STREAM: &str = "\u{feff}: alive\r\n\r\nid: 1\ndata:\n\nretry: 50\ndata: {\"a\":\ndata:  1}\revent: message\r\rid:2\r\ndata: x\r\n\r\ndata: cut";

    #[test]
    fn events_are_read_however_they_are_cut() {
        let expected = [event(Some("1"), ""), event(None, "{\"a\":\n 1}"), event(Some("2"), "x")];
        let bytes = STREAM.as_bytes();
        for size in 1..bytes.len() {
            let mut parser = Parser::new(1_000);
            let events: Vec<_> = bytes.chunks(size).flat_map(|piece| parser.take(piece).expect("short")).collect();
            assert_eq!(events, expected, "in pieces of {size}");
            assert_eq!(parser.retry, Some(50));
        }
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut parser = Parser::new(1_000);
        assert!((0..10).any(|_| parser.take(&[b'x'; 200]) == Err(TooLong)));
        let mut parser = Parser::new(1_000);
        assert!((0..200).any(|_| parser.take(b"data: xxxxxxxxxx\n") == Err(TooLong)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_growing(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..50)) {
            let mut parser = Parser::new(200);
            for piece in pieces {
                if parser.take(&piece).is_err() {
                    break;
                }
                prop_assert!(parser.line.len() + parser.data.len() <= 200);
            }
        }
    }
}
