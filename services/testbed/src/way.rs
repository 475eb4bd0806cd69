//! A long or narrow way between regions in namespaces, where the kernel has no `netem`.
//!
//! Whatever a region sends to another goes through a [`Proxy`] in its own namespace, which addresses and programs do not
//! know of: the kernel turns new connections round (`REDIRECT`), and the proxy asks it where they were to go.

use std::{io, net::Ipv4Addr, time::Duration};

use tokio::time::sleep;

use crate::{
    Cut, Loss, Network, Region, TestbedError,
    proxy::{Proxy, Shape},
};

/// Where the proxy of a region listens, on its loopback interface.
const PORT: u16 = 19_999;
/// How long connections are reset that were there before, so that all go the other way.
const RESETS: Duration = Duration::from_millis(1_500);

/// Between all regions of a testbed, until [`Way::end`]. When it is dropped instead, regions do not reach each other.
#[derive(Debug)]
pub struct Way {
    network: Network,
    regions: Vec<Region>,
    _proxies: Vec<Proxy>,
}

impl Way {
    /// Has everything between regions take this way, in both directions. Connections that are there are reset.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Uncuttable`] on loopback, [`TestbedError::Namespace`], and [`TestbedError::Tool`] when iptables
    /// refuses.
    pub async fn begin(network: Network, regions: &[Region], shape: Shape, seed: u64) -> Result<Self, TestbedError> {
        if network == Network::Loopback {
            return Err(TestbedError::Uncuttable);
        }
        let mut proxies = Vec::new();
        for region in regions.iter().copied() {
            let listen = move || {
                let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
                listener.set_nonblocking(true)?;
                Ok::<_, io::Error>(listener)
            };
            let failed = |source| TestbedError::Namespace { name: region.to_string(), source };
            let listener = network.within(region, listen).await?.map_err(failed)?;
            let proxy = Proxy::between(listener, network, region, shape, seed ^ u64::from(region.number()));
            proxies.push(proxy.map_err(failed)?);
        }
        let way = Self { network, regions: regions.to_vec(), _proxies: proxies };
        for (from, to) in way.pairs() {
            network.redirect(from, to, PORT).await?;
        }
        way.reset().await?;
        Ok(way)
    }

    /// Has everything go straight again.
    ///
    /// # Errors
    ///
    /// Those of [`Way::begin`].
    pub async fn end(self) -> Result<(), TestbedError> {
        for region in self.regions.iter().copied() {
            self.network.redirect_nothing(region).await?;
        }
        self.reset().await
    }

    fn pairs(&self) -> impl Iterator<Item = (Region, Region)> {
        let regions = &self.regions;
        regions.iter().flat_map(|from| regions.iter().filter(move |to| *to != from).map(|to| (*from, *to)))
    }

    async fn reset(&self) -> Result<(), TestbedError> {
        for (from, to) in self.pairs() {
            self.network.cut(Cut { from, to, one_way: true, loss: Loss::Reset }).await?;
        }
        sleep(RESETS).await;
        self.network.heal(&self.regions).await
    }
}
