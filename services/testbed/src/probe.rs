//! Asks a server in its own protocol whether it serves.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A server of a test answers, be it late: what is tried there is not the time.
const CONNECT: Duration = if cfg!(test) { Duration::from_secs(60) } else { Duration::from_millis(500) };
const ANSWER: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 3 });
/// An answer longer than this is none of those asked for.
const LONGEST: usize = 1 << 20;
/// `correlation_id` of all requests.
const CORRELATION: [u8; 4] = *b"echo";

/// Whether a CQL server answers OPTIONS (CQL binary protocol v4, sections 2 and 4.1.3).
pub(crate) fn cql(address: SocketAddr) -> io::Result<bool> {
    let mut server = connect(address)?;
    server.write_all(&[0x04, 0, 0, 0, 0x05, 0, 0, 0, 0])?;
    let mut header = [0; 9];
    server.read_exact(&mut header)?;
    Ok(header[0] == 0x84 && header[4] == 0x06)
}

/// The brokers that a broker knows to be alive, by ApiVersions v0 and DescribeCluster v0 of the Kafka protocol.
pub(crate) fn kafka(address: SocketAddr) -> io::Result<Vec<i32>> {
    let mut server = connect(address)?;
    let versions = ask(&mut server, &[0, 18, 0, 0], &[])?;
    let mut versions = Reader(&versions);
    if versions.i16()? != 0 {
        return Err(broken("ApiVersions was refused"));
    }
    // The header of a flexible version ends with its tags, and so does the body: operations not wanted, no tags.
    described(&ask(&mut server, &[0, 60, 0, 0], &[0, 0, 0])?)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let server = TcpStream::connect_timeout(&address, CONNECT)?;
    server.set_read_timeout(Some(ANSWER))?;
    server.set_write_timeout(Some(ANSWER))?;
    Ok(server)
}

/// Sends a request with key and version as given; the answer without size and correlation id.
fn ask(server: &mut TcpStream, kind: &[u8], body: &[u8]) -> io::Result<Vec<u8>> {
    const CLIENT: &[u8] = b"\0\x07testbed";
    let content = [kind, &CORRELATION, CLIENT, body].concat();
    let size = u32::try_from(content.len()).map_err(|_| broken("a request of this size"))?;
    server.write_all(&[&size.to_be_bytes(), content.as_slice()].concat())?;
    let mut size = [0; 4];
    server.read_exact(&mut size)?;
    let size = u32::from_be_bytes(size) as usize;
    if !(CORRELATION.len()..=LONGEST).contains(&size) {
        return Err(broken("the size of the answer is none"));
    }
    let mut answer = vec![0; size];
    server.read_exact(&mut answer)?;
    if !answer.starts_with(&CORRELATION) {
        return Err(broken("the answer is to another request"));
    }
    Ok(answer.split_off(CORRELATION.len()))
}

/// The ids of the brokers in an answer to DescribeCluster v0.
fn described(answer: &[u8]) -> io::Result<Vec<i32>> {
    let mut answer = Reader(answer);
    answer.tags()?;
    answer.take(4)?; // throttle_time_ms
    if answer.i16()? != 0 {
        return Err(broken("DescribeCluster was refused"));
    }
    answer.string()?; // error_message
    answer.string()?; // cluster_id
    answer.take(4)?; // controller_id
    let mut ids = Vec::new();
    for _ in 1..answer.varint()? {
        ids.push(answer.i32()?);
        answer.string()?; // host
        answer.take(4)?; // port
        answer.string()?; // rack
        answer.tags()?;
    }
    Ok(ids)
}

/// What is left to read of an answer.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| broken("the answer is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| broken("the answer is cut off"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn i16(&mut self) -> io::Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> io::Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn varint(&mut self) -> io::Result<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let [byte] = self.array()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(broken("a number is too long"))
    }

    /// A compact string, which may be null: its length and one, then its bytes.
    fn string(&mut self) -> io::Result<()> {
        let length = self.varint()?;
        self.take(length.saturating_sub(1)).map(|_| ())
    }

    fn tags(&mut self) -> io::Result<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.take(length)?;
        }
        Ok(())
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// A server that answers each request of a known length.
    fn server(exchanges: Vec<(usize, Vec<u8>)>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || -> io::Result<()> {
            let (mut client, _) = listener.accept()?;
            for (length, answer) in exchanges {
                client.read_exact(&mut vec![0; length])?;
                client.write_all(&answer)?;
            }
            Ok(())
        });
        address
    }

    fn framed(content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(content.len() + 4).unwrap();
        [&size.to_be_bytes(), CORRELATION.as_slice(), content].concat()
    }

    /// Two brokers, 1 and 3, of which the first has a rack and a tag.
    const CLUSTER: &[u8] = b"\0\0\0\0\0\0\0\0\x03id\0\0\0\x01\x03\
        \0\0\0\x01\x02h\0\0\x23\x84\x02r\x01\x05\x02ab\
        \0\0\0\x03\x02h\0\0\x23\x88\0\0\x80\0\0\0\0";

    #[test]
    fn only_supported_is_an_answer_to_options() {
        let supported = vec![0x84, 0, 0, 0, 0x06, 0, 0, 0, 0];
        let error = vec![0x84, 0, 0, 0, 0x00, 0, 0, 0, 0];
        assert!(cql(server(vec![(9, supported)])).unwrap());
        assert!(!cql(server(vec![(9, error)])).unwrap());
        assert!(cql(server(vec![(9, vec![0x84])])).is_err());
    }

    #[test]
    fn a_broker_tells_which_brokers_live() {
        let asked = 4 + 4 + 4 + 9;
        let versions = framed(&[0, 0, 0, 0, 0, 0]);
        let address = server(vec![(asked, versions.clone()), (asked + 3, framed(CLUSTER))]);
        assert_eq!(kafka(address).unwrap(), [1, 3]);
        let refused = framed(&[0, 35, 0, 0, 0, 0]);
        assert!(kafka(server(vec![(asked, refused)])).is_err());
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error_wherever_it_is() {
        assert_eq!(described(CLUSTER).unwrap(), [1, 3]);
        let needed = CLUSTER.len() - 5; // the operations and the last tags are not read
        for length in 0..needed {
            assert!(described(&CLUSTER[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_size_beyond_all_measure_is_not_allocated() {
        let asked = 4 + 4 + 4 + 9;
        assert!(kafka(server(vec![(asked, vec![0xff; 8])])).is_err());
    }
}
