//! A TCP proxy that stands for a long way between regions: delay, jitter, a narrow link, and connections that are
//! dropped, frozen or refused on command. For machines whose kernel lacks `netem`, and without privileges.
//!
//! It keeps the order of bytes, as TCP does, so that jitter never reorders. What it delays it holds in memory, up to
//! 4 MiB for each direction of a connection; then the sender has to wait, as for a full window.

mod pipe;
mod shape;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time,
};

pub use self::shape::{Shape, ShapeError};
use self::{pipe::Pipe, shape::Lane};
use crate::{Network, Region, random::Random};

/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 4096;

/// What a link does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It carries them.
    Open,
    /// It carries nothing and closes nothing; what is on the way arrives after it is open again. New connections are
    /// taken and hear nothing either.
    Frozen,
    /// It resets new ones at once. Those that are there stay: [`Proxy::drop_connections`] ends them.
    Refusing,
}

/// How a link is at a moment. A new epoch ends the connections of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    shape: Shape,
    link: Link,
    epoch: u64,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    setting: watch::Sender<Setting>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on an address (port 0 chooses a free one) and carries each connection to the target. The seed decides
    /// the jitter: the same connections in the same order get the same one.
    ///
    /// # Errors
    ///
    /// That of binding the address.
    pub async fn start(listen: SocketAddr, target: SocketAddr, shape: Shape, seed: u64) -> io::Result<Self> {
        Self::run(TcpListener::bind(listen).await?, Onward::To(target), shape, seed)
    }

    /// Carries the connections of a region that the kernel turned round to this listener, to where they were to go.
    pub(crate) fn between(
        listener: std::net::TcpListener,
        network: Network,
        region: Region,
        shape: Shape,
        seed: u64,
    ) -> io::Result<Self> {
        Self::run(TcpListener::from_std(listener)?, Onward::Meant(network, region), shape, seed)
    }

    fn run(listener: TcpListener, onward: Onward, shape: Shape, seed: u64) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (setting, seen) = watch::channel(Setting { shape, link: Link::Open, epoch: 0 });
        let accepting = tokio::spawn(accept(listener, onward, seen, Random(seed)));
        Ok(Self { address, setting, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the way for all that is sent from now on, on connections that are there too.
    pub fn shape(&self, shape: Shape) {
        self.setting.send_modify(|setting| setting.shape = shape);
    }

    /// Changes what the link does.
    pub fn link(&self, link: Link) {
        self.setting.send_modify(|setting| setting.link = link);
    }

    /// Resets all connections, with what is on the way.
    pub fn drop_connections(&self) {
        self.setting.send_modify(|setting| setting.epoch += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections are tasks of a set that this one owns, and end with it.
        self.accepting.abort();
    }
}

/// Where connections go.
#[derive(Debug, Clone, Copy)]
enum Onward {
    /// All to one address.
    To(SocketAddr),
    /// From this region, each to where it was to go before the kernel turned it round.
    Meant(Network, Region),
}

impl Onward {
    async fn connect(self, client: &TcpStream) -> io::Result<TcpStream> {
        match self {
            Self::To(target) => TcpStream::connect(target).await,
            Self::Meant(network, region) => {
                let meant = SockRef::from(client).original_dst_v4()?.as_socket();
                let meant = meant.ok_or_else(|| io::Error::other("the kernel does not know where it was to go"))?;
                network.through(region, meant).await.map_err(io::Error::other)
            }
        }
    }
}

/// When the two directions of a link are free again. All connections share them.
#[derive(Debug, Clone, Default)]
struct Lanes {
    there: Arc<Mutex<Lane>>,
    back: Arc<Mutex<Lane>>,
}

fn locked(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, onward: Onward, setting: watch::Receiver<Setting>, mut random: Random) {
    let lanes = Lanes::default();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others may end meanwhile.
            time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if setting.borrow().link == Link::Refusing || connections.len() >= CONNECTIONS {
            reset(&client);
            continue;
        }
        connections.spawn(carry(client, onward, setting.clone(), lanes.clone(), random.fork()));
    }
}

/// Carries one connection until both sides have ended, one has failed, or it is dropped on command.
async fn carry(
    mut client: TcpStream,
    onward: Onward,
    mut setting: watch::Receiver<Setting>,
    lanes: Lanes,
    mut random: Random,
) {
    let epoch = setting.borrow().epoch;
    let Ok(mut server) = onward.connect(&client).await else {
        reset(&client);
        return;
    };
    for side in [&client, &server] {
        // Small answers are delayed by us, not by Nagle's algorithm.
        let _ = side.set_nodelay(true);
    }
    let there = Pipe { lane: &lanes.there, setting: setting.clone(), random: random.fork() };
    let back = Pipe { lane: &lanes.back, setting: setting.clone(), random: random.fork() };
    let ((client_reads, client_writes), (server_reads, server_writes)) = (client.split(), server.split());
    let both =
        async { tokio::try_join!(there.run(client_reads, server_writes), back.run(server_reads, client_writes)) };
    let whole = tokio::select! {
        done = both => done.is_ok(),
        _ = setting.wait_for(|setting| setting.epoch != epoch) => false,
    };
    if !whole {
        reset(&client);
        reset(&server);
    }
}

/// Has a connection end by a reset when it is dropped.
fn reset(side: &TcpStream) {
    let _ = side.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, num::NonZeroU64};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// Where no other test listens and nobody connects from: a port that was given up there is nobody's.
    const ALONE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 83, 1)), 0);

    /// A server that says everything back, and a proxy before it.
    async fn echo(shape: Shape) -> Proxy {
        echo_at(ANY, shape).await
    }

    async fn echo_at(listen: SocketAddr, shape: Shape) -> Proxy {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = client.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        Proxy::start(listen, address, shape, 1).await.unwrap()
    }

    async fn round(client: &mut TcpStream) -> io::Result<Duration> {
        let start = Instant::now();
        client.write_all(b"hello").await?;
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"hello");
        Ok(start.elapsed())
    }

    async fn hears_nothing(client: &mut TcpStream) -> bool {
        time::timeout(100 * MS, client.read_u8()).await.is_err()
    }

    #[tokio::test]
    async fn both_ways_are_delayed_and_the_delay_changes_while_connected() {
        let proxy = echo(Shape::delayed(60 * MS, 20 * MS).unwrap()).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(round(&mut client).await.unwrap() >= 120 * MS);
        proxy.shape(Shape::delayed(200 * MS, Duration::ZERO).unwrap());
        assert!(round(&mut client).await.unwrap() >= 400 * MS);
    }

    #[tokio::test]
    async fn bytes_keep_their_order_under_jitter_and_the_end_follows_them() {
        let proxy = echo(Shape::delayed(MS, 20 * MS).unwrap()).await;
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
        let (mut from, mut to) = client.into_split();
        let copy = sent.clone();
        let writing = tokio::spawn(async move { to.write_all(&copy).await });
        let mut received = Vec::new();
        from.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn a_narrow_link_is_shared_by_all_connections() {
        let proxy = echo(Shape::default().narrow(NonZeroU64::new(200_000).unwrap())).await;
        let start = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let mut client = TcpStream::connect(proxy.address()).await.unwrap();
            clients.spawn(async move {
                client.write_all(&[7; 20_000]).await?;
                client.read_exact(&mut [0; 20_000]).await
            });
        }
        assert!(clients.join_all().await.into_iter().all(|done| done.is_ok()));
        assert!(start.elapsed() >= 400 * MS, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn connections_are_reset_on_command_and_new_ones_carried() {
        let proxy = echo(Shape::default()).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        round(&mut client).await.unwrap();
        proxy.drop_connections();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let mut next = TcpStream::connect(proxy.address()).await.unwrap();
        round(&mut next).await.unwrap();
    }

    #[tokio::test]
    async fn a_frozen_link_delivers_after_it_is_open_again() {
        let proxy = echo(Shape::default()).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        round(&mut client).await.unwrap();
        proxy.link(Link::Frozen);
        client.write_all(b"!").await.unwrap();
        assert!(hears_nothing(&mut client).await);
        proxy.link(Link::Open);
        assert_eq!(client.read_u8().await.unwrap(), b'!');
    }

    #[tokio::test]
    async fn a_refusing_link_spares_connections_that_are_there() {
        let proxy = echo(Shape::default()).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        round(&mut client).await.unwrap();
        proxy.link(Link::Refusing);
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(round(&mut refused).await.is_err());
        round(&mut client).await.unwrap();
    }

    #[tokio::test]
    async fn a_target_that_is_away_and_a_proxy_that_is_dropped_end_connections() {
        let gone = TcpListener::bind(ALONE).await.unwrap().local_addr().unwrap();
        let nowhere = Proxy::start(ANY, gone, Shape::default(), 1).await.unwrap();
        let mut client = TcpStream::connect(nowhere.address()).await.unwrap();
        assert!(round(&mut client).await.is_err());

        let proxy = echo_at(ALONE, Shape::default()).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        round(&mut client).await.unwrap();
        let address = proxy.address();
        drop(proxy);
        assert!(round(&mut client).await.is_err());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
