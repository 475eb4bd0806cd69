//! One direction of one connection.

use std::{io, sync::Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{ReadHalf, WriteHalf},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{Link, Setting, locked, shape::Lane};
use crate::random::Random;

/// Bytes of one piece at the most.
const PIECE: usize = 16 * 1024;
/// Pieces on the way at a time: 4 MiB.
const PIECES: usize = 256;

/// Bytes and when they arrive.
type Piece = (Instant, Vec<u8>);

/// What one direction needs to know.
pub(super) struct Pipe<'a> {
    pub(super) lane: &'a Mutex<Lane>,
    pub(super) setting: watch::Receiver<Setting>,
    pub(super) random: Random,
}

impl Pipe<'_> {
    /// Carries bytes until the sender ends, and ends the other side then.
    pub(super) async fn run(self, from: ReadHalf<'_>, to: WriteHalf<'_>) -> io::Result<()> {
        let (send, receive) = mpsc::channel(PIECES);
        let setting = self.setting.clone();
        tokio::try_join!(self.collect(from, send), deliver(receive, setting, to))?;
        Ok(())
    }

    async fn collect(mut self, mut from: ReadHalf<'_>, send: mpsc::Sender<Piece>) -> io::Result<()> {
        let mut arrives = Instant::now();
        loop {
            let mut bytes = Vec::with_capacity(PIECE);
            let count = from.read_buf(&mut bytes).await?;
            if count == 0 {
                return Ok(());
            }
            let shape = self.setting.borrow().shape;
            let sent = locked(self.lane).sent(Instant::now(), count, &shape);
            // Nothing overtakes what was sent before it.
            arrives = arrives.max(sent + shape.latency(&mut self.random));
            if send.send((arrives, bytes)).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn deliver(
    mut receive: mpsc::Receiver<Piece>,
    mut setting: watch::Receiver<Setting>,
    mut to: WriteHalf<'_>,
) -> io::Result<()> {
    while let Some((arrives, bytes)) = receive.recv().await {
        sleep_until(arrives).await;
        if setting.wait_for(|setting| setting.link != Link::Frozen).await.is_err() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        to.write_all(&bytes).await?;
    }
    to.shutdown().await
}
