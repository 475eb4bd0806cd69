//! A way to a CQL server on which requests or answers get lost, by the statement that they are of.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

const HEADER: usize = 9;
const RESULT: u8 = 0x08;
const PREPARE: u8 = 0x09;
const EXECUTE: u8 = 0x0a;
const BATCH: u8 = 0x0d;
/// The kind of a result that tells the id of a prepared statement.
const PREPARED: [u8; 4] = [0, 0, 0, 4];

/// What gets lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The server never hears of it.
    Request,
    /// The server does it, and nobody is told.
    Answer,
}

#[derive(Default)]
struct Rules {
    /// Texts of statements by their ids.
    prepared: HashMap<Vec<u8>, String>,
    /// What is lost of statements with a text, and how often yet.
    losing: Vec<(&'static str, Lost, usize)>,
}

impl Rules {
    fn loses(&mut self, body: &[u8]) -> Option<Lost> {
        let Self { prepared, losing } = self;
        let of = |text: &str| {
            let mut ids = prepared.iter().filter(|(_, statement)| statement.contains(text));
            ids.any(|(id, _)| body.windows(id.len()).any(|part| part == id))
        };
        let (_, lost, left) = losing.iter_mut().find(|(text, _, left)| *left > 0 && of(text))?;
        *left -= 1;
        Some(*lost)
    }
}

/// The way, open while this is there.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) at: SocketAddr,
    rules: Arc<Mutex<Rules>>,
    losses: watch::Sender<usize>,
}

impl Way {
    /// A way to a server, on the same address and another port, which the driver takes for the server's.
    pub(crate) async fn to(server: &str) -> Self {
        let server: SocketAddr = server.parse().expect("an address");
        let listener = TcpListener::bind((server.ip(), 0)).await.expect("a port");
        let way = Self {
            at: listener.local_addr().expect("an address"),
            rules: Arc::default(),
            losses: watch::Sender::new(0),
        };
        let taken = way.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                taken.carry(client, server);
            }
        });
        way
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on so many requests with a statement of this text, or their answers, get lost.
    pub(crate) fn lose(&self, text: &'static str, lost: Lost, times: usize) {
        self.rules().losing.push((text, lost, times));
    }

    /// From now on nothing gets lost.
    pub(crate) fn heal(&self) {
        self.rules().losing.clear();
    }

    /// Done when so many more have been lost.
    pub(crate) async fn lost(&self, more: usize) {
        let mut losses = self.losses.subscribe();
        let wanted = *losses.borrow_and_update() + more;
        losses.wait_for(|losses| *losses >= wanted).await.expect("open");
    }

    fn carry(&self, client: TcpStream, server: TcpStream) {
        for one in [&client, &server] {
            one.set_nodelay(true).expect("set");
        }
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let (asked, unheard) =
            (Arc::<Mutex<HashMap<[u8; 2], String>>>::default(), Arc::<Mutex<HashSet<[u8; 2]>>>::default());
        tokio::spawn(self.clone().requests(from_client, to_server, Arc::clone(&asked), Arc::clone(&unheard)));
        tokio::spawn(self.clone().answers(from_server, to_client, asked, unheard));
    }

    async fn requests(
        self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        asked: Arc<Mutex<HashMap<[u8; 2], String>>>,
        unheard: Arc<Mutex<HashSet<[u8; 2]>>>,
    ) {
        while let Some(frame) = frame(&mut from).await {
            let (stream, opcode, body) = ([frame[2], frame[3]], frame[4], &frame[HEADER..]);
            if opcode == PREPARE {
                let text = String::from_utf8_lossy(&body[4..]).into_owned();
                asked.lock().expect("not poisoned").insert(stream, text);
            }
            let lost = if opcode == EXECUTE || opcode == BATCH { self.rules().loses(body) } else { None };
            if lost.is_some() {
                self.losses.send_modify(|losses| *losses += 1);
            }
            match lost {
                Some(Lost::Request) => continue,
                Some(Lost::Answer) => drop(unheard.lock().expect("not poisoned").insert(stream)),
                None => {}
            }
            if to.write_all(&frame).await.is_err() {
                return;
            }
        }
    }

    async fn answers(
        self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        asked: Arc<Mutex<HashMap<[u8; 2], String>>>,
        unheard: Arc<Mutex<HashSet<[u8; 2]>>>,
    ) {
        while let Some(frame) = frame(&mut from).await {
            let (stream, opcode, body) = ([frame[2], frame[3]], frame[4], &frame[HEADER..]);
            let text = asked.lock().expect("not poisoned").remove(&stream);
            if let (Some(text), RESULT, Some(rest)) = (text, opcode, body.strip_prefix(&PREPARED)) {
                let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                self.rules().prepared.insert(rest[2..2 + length].to_vec(), text);
            }
            let is_lost = unheard.lock().expect("not poisoned").remove(&stream);
            if !is_lost && to.write_all(&frame).await.is_err() {
                return;
            }
        }
    }
}

/// The next frame of version 4 of the protocol, uncompressed.
async fn frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    from.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]);
    frame.resize(HEADER + usize::try_from(length).ok()?, 0);
    from.read_exact(&mut frame[HEADER..]).await.ok()?;
    Some(frame)
}
