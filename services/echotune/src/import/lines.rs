use std::io::{self, BufRead};

/// What the next line is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line within the limit; it is in the buffer, without its line end.
    Held,
    /// A line of so many bytes, more than the limit; it was skipped.
    TooLong(u64),
    /// There is none.
    End,
}

/// Lines of a text with a limit on their length, so that a text without line ends takes no memory.
pub(crate) struct Lines<R> {
    from: R,
    limit: usize,
    number: u64,
    read: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) const fn new(from: R, limit: usize) -> Self {
        Self { from, limit, number: 0, read: 0 }
    }

    /// Number of the line read last, from 1.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Bytes read since the last call of this.
    pub(crate) fn take_read(&mut self) -> u64 {
        std::mem::take(&mut self.read)
    }

    /// Reads the next line into `buffer`.
    pub(crate) fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<Line> {
        buffer.clear();
        let mut length = 0_u64;
        let mut ended = false;
        while !ended {
            let held = match self.from.fill_buf() {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                held => held?,
            };
            if held.is_empty() {
                break;
            }
            let end = held.iter().position(|byte| *byte == b'\n');
            let text = &held[..end.unwrap_or(held.len())];
            if buffer.len() + text.len() <= self.limit && length == buffer.len() as u64 {
                buffer.extend_from_slice(text);
            }
            length += text.len() as u64;
            ended = end.is_some();
            let used = text.len() + usize::from(ended);
            self.read += used as u64;
            self.from.consume(used);
        }
        if length == 0 && !ended {
            return Ok(Line::End);
        }
        self.number += 1;
        if length > self.limit as u64 {
            buffer.clear();
            return Ok(Line::TooLong(length));
        }
        if buffer.last() == Some(&b'\r') {
            buffer.pop();
        }
        if self.number == 1 && buffer.starts_with(b"\xef\xbb\xbf") {
            buffer.drain(..3);
        }
        Ok(Line::Held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_skipped_and_counted_and_the_others_kept() {
        let text = format!("\u{feff}a\r\n{}\n\nlast", "x".repeat(50));
        for capacity in [1, 7, 4_096] {
            let from = io::BufReader::with_capacity(capacity, text.as_bytes());
            let mut lines = Lines::new(from, 10);
            let (mut buffer, mut found) = (Vec::new(), Vec::new());
            loop {
                match lines.next(&mut buffer).expect("read") {
                    Line::End => break,
                    Line::Held => found.push(String::from_utf8(buffer.clone()).expect("text")),
                    Line::TooLong(length) => found.push(format!("{length} at {}", lines.number())),
                }
            }
            assert_eq!(found, ["a", "50 at 2", "", "last"]);
            assert_eq!(lines.take_read(), text.len() as u64);
        }
    }
}
