//! Where regions live: on loopback addresses, or each in a network namespace of its own that can be cut off.
//!
//! Namespaces hang on a bridge in one more, the hub. Nothing is linked to the machine's own network and there is no
//! default route, so that nothing started inside can leave.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    str::FromStr,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpSocket, TcpStream},
    process::Command,
    sync::oneshot,
};

use crate::{Region, TestbedError, process::last_lines};

/// The namespace of the bridge, where a client from outside stands.
const HUB: &str = "echotune-hub";
/// The chain of rules that cut regions off.
const CHAIN: &str = "ECHOTUNE";
/// The mark of what a proxy sends on, which is not turned round to it again.
const THROUGH: u32 = 0x7430;
/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
pub(crate) const NO_IP: &str = "; install iproute2";

/// Where regions live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// 127.0.0.1 for us, .2 for eu, .3 for ap. Needs no privileges. Regions cannot be cut off from each other, since
    /// neither Cassandra nor Kafka's clients bind the addresses they call from.
    Loopback,
    /// 10.99.0.1 for us, .2 for eu, .3 for ap, each in a network namespace `echotune-REGION`, and .254 in
    /// `echotune-hub`. Needs root, iproute2 and iptables.
    Namespaces,
}

/// A cut between two regions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// One side.
    pub from: Region,
    /// The other.
    pub to: Region,
    /// Only what goes from the first to the second is lost.
    pub one_way: bool,
    /// What happens to packets.
    pub loss: Loss,
}

/// What happens to packets between regions that are cut off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// All vanish.
    Silence,
    /// All are answered by a TCP reset, so that both sides know at once.
    Reset,
    /// As many of a hundred vanish, chosen at random.
    Percent(Percent),
}

/// More than nothing and up to a hundred of a hundred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.parse().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
        percent.map(Self).ok_or_else(|| format!("'{text}' is no number above 0 and up to 100"))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Loopback => "loopback",
            Self::Namespaces => "namespaces",
        })
    }
}

impl Network {
    /// The address of a region.
    pub fn address(self, region: Region) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::new(127, 0, 0, region.number()),
            Self::Namespaces => Ipv4Addr::new(10, 99, 0, region.number()),
        }
    }

    /// A program that will run where a region lives. It keeps the process id: `ip netns exec` becomes the program.
    pub fn command(self, region: Region, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Loopback => Command::new(program),
            Self::Namespaces => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespace(region)]).arg(program);
                command
            }
        }
    }

    /// Does something on a thread that lives where a region does, such as connecting to a server there. Sockets that
    /// it opens stay there, whoever uses them afterwards.
    ///
    /// # Errors
    ///
    /// [`TestbedError::Namespace`] when the region's namespace cannot be entered.
    pub async fn within<T: Send + 'static>(
        self,
        region: Region,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TestbedError> {
        let failed = move |source| TestbedError::Namespace { name: namespace(region), source };
        let (send, receive) = oneshot::channel();
        let enter_and_work = move || {
            let entered = match self {
                Self::Loopback => Ok(()),
                Self::Namespaces => enter(&namespace(region)),
            };
            // Whoever asked may be gone.
            let _ = send.send(entered.map(|()| work()));
        };
        thread::Builder::new().name(format!("testbed-{region}")).spawn(enter_and_work).map_err(failed)?;
        let done = receive.await.unwrap_or_else(|_| Err(io::Error::other("the work there panicked")));
        done.map_err(failed)
    }

    /// Whether nobody has namespaces of these names.
    pub(crate) fn vacant(self, regions: &[Region]) -> Result<(), TestbedError> {
        match names(regions).find(|name| self == Self::Namespaces && path(name).exists()) {
            Some(name) => Err(TestbedError::NamespaceTaken(name)),
            None => Ok(()),
        }
    }

    /// Makes the namespaces of regions and links them.
    pub(crate) async fn create(self, regions: &[Region]) -> Result<(), TestbedError> {
        if self == Self::Loopback {
            return Ok(());
        }
        ip(&["netns", "add", HUB]).await?;
        for line in ["link set lo up", "link add br0 type bridge", "addr add 10.99.0.254/24 dev br0", "link set br0 up"]
        {
            ip_in(HUB, line).await?;
        }
        for region in regions {
            let (name, address) = (namespace(*region), self.address(*region));
            ip(&["netns", "add", &name]).await?;
            ip_in(&name, "link set lo up").await?;
            ip_in(HUB, &format!("link add v-{region} type veth peer name eth0 netns {name}")).await?;
            ip_in(HUB, &format!("link set v-{region} master br0 up")).await?;
            ip_in(&name, &format!("addr add {address}/24 dev eth0")).await?;
            ip_in(&name, "link set eth0 up").await?;
            self.rules(*region, &["-N", CHAIN]).await?;
            self.rules(*region, &["-I", "INPUT", "-j", CHAIN]).await?;
        }
        Ok(())
    }

    /// Whether all namespaces of regions are there.
    pub(crate) fn exists(self, regions: &[Region]) -> bool {
        self == Self::Loopback || names(regions).all(|name| path(&name).exists())
    }

    /// Removes the namespaces of regions, as far as they are there.
    pub(crate) async fn remove(self, regions: &[Region]) -> Result<(), TestbedError> {
        if self == Self::Namespaces {
            for name in names(regions).filter(|name| path(name).exists()) {
                ip(&["netns", "del", &name]).await?;
            }
        }
        Ok(())
    }

    /// Cuts two regions off from each other, besides what is cut already.
    pub(crate) async fn cut(self, cut: Cut) -> Result<(), TestbedError> {
        if self == Self::Loopback {
            return Err(TestbedError::Uncuttable);
        }
        if cut.from == cut.to {
            return Err(TestbedError::CutOfOne(cut.from));
        }
        self.drop_from(cut.from, cut.to, cut.loss).await?;
        if !cut.one_way {
            self.drop_from(cut.to, cut.from, cut.loss).await?;
        }
        Ok(())
    }

    /// Undoes all cuts.
    pub(crate) async fn heal(self, regions: &[Region]) -> Result<(), TestbedError> {
        if self == Self::Loopback {
            return Err(TestbedError::Uncuttable);
        }
        for region in regions {
            self.rules(*region, &["-F", CHAIN]).await?;
        }
        Ok(())
    }

    /// Has new connections from a region to another end at a port of its own loopback interface.
    pub(crate) async fn redirect(self, from: Region, to: Region, port: u16) -> Result<(), TestbedError> {
        let (to, port, mark) = (self.address(to).to_string(), port.to_string(), format!("{THROUGH:#x}"));
        let rule = ["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", &to, "-m", "mark", "!", "--mark", &mark];
        self.rules(from, &[&rule[..], &["-j", "REDIRECT", "--to-ports", &port]].concat()).await
    }

    /// Has new connections from a region go where they are to go.
    pub(crate) async fn redirect_nothing(self, from: Region) -> Result<(), TestbedError> {
        self.rules(from, &["-t", "nat", "-F", "OUTPUT"]).await
    }

    /// A connection from a region to an address that is not turned round.
    pub(crate) async fn through(self, from: Region, to: SocketAddr) -> Result<TcpStream, TestbedError> {
        let failed = move |source| TestbedError::Namespace { name: namespace(from), source };
        let socket = move || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_mark(THROUGH)?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        let socket = self.within(from, socket).await?.map_err(failed)?;
        TcpSocket::from_std_stream(socket.into()).connect(to).await.map_err(failed)
    }

    async fn drop_from(self, from: Region, to: Region, loss: Loss) -> Result<(), TestbedError> {
        let rule = rule(self.address(from), loss);
        self.rules(to, &rule.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    async fn rules(self, region: Region, arguments: &[&str]) -> Result<(), TestbedError> {
        let mut command = self.command(region, "iptables");
        command.arg("--wait").args(arguments);
        run(command, "; install iptables").await
    }
}

/// What is told to iptables of the side that packets come to.
fn rule(from: Ipv4Addr, loss: Loss) -> Vec<String> {
    let what = match loss {
        Loss::Silence => "-j DROP".to_owned(),
        // The resets themselves must pass, or a cut of both ways is silence.
        Loss::Reset => "-p tcp ! --tcp-flags RST RST -j REJECT --reject-with tcp-reset".to_owned(),
        Loss::Percent(Percent(percent)) => {
            format!("-m statistic --mode random --probability {} -j DROP", percent / 100.0)
        }
    };
    format!("-A {CHAIN} -s {from} {what}").split(' ').map(str::to_owned).collect()
}

fn namespace(region: Region) -> String {
    format!("echotune-{region}")
}

fn names(regions: &[Region]) -> impl Iterator<Item = String> {
    regions.iter().map(|region| namespace(*region)).chain([HUB.to_owned()])
}

fn path(name: &str) -> PathBuf {
    Path::new(NAMESPACES).join(name)
}

/// Moves the calling thread for good.
fn enter(name: &str) -> io::Result<()> {
    let file = fs::File::open(path(name))?;
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

async fn ip_in(name: &str, line: &str) -> Result<(), TestbedError> {
    ip(&[&["-n", name], line.split(' ').collect::<Vec<_>>().as_slice()].concat()).await
}

pub(crate) async fn ip(arguments: &[&str]) -> Result<(), TestbedError> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command, NO_IP).await
}

/// Runs a program of the system to its end; the hint says what to install when it is not there.
pub(crate) async fn run(mut command: Command, hint: &'static str) -> Result<(), TestbedError> {
    let what = format!("{:?}", command.as_std()).replace('"', "");
    let output = command.kill_on_drop(true).output().await.map_err(TestbedError::program(&what, hint))?;
    if output.status.success() {
        return Ok(());
    }
    Err(TestbedError::Tool { what, said: last_lines(&String::from_utf8_lossy(&output.stderr)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_has_an_address_of_its_own_on_both_networks() {
        let of = |network: Network| Region::ALL.map(|region| network.address(region).to_string());
        assert_eq!(of(Network::Loopback), ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        assert_eq!(of(Network::Namespaces), ["10.99.0.1", "10.99.0.2", "10.99.0.3"]);
    }

    #[test]
    fn a_program_of_a_region_runs_in_its_namespace() {
        let shown = |network: Network| format!("{:?}", network.command(Region::Eu, "java").as_std());
        assert_eq!(shown(Network::Loopback), r#""java""#);
        assert_eq!(shown(Network::Namespaces), r#""ip" "netns" "exec" "echotune-eu" "java""#);
    }

    #[test]
    fn rules_name_the_side_that_is_lost() {
        let told = |loss| rule(Ipv4Addr::new(10, 99, 0, 1), loss).join(" ");
        assert_eq!(told(Loss::Silence), "-A ECHOTUNE -s 10.99.0.1 -j DROP");
        assert_eq!(
            told(Loss::Reset),
            "-A ECHOTUNE -s 10.99.0.1 -p tcp ! --tcp-flags RST RST -j REJECT --reject-with tcp-reset"
        );
        let third = "30".parse().map(Loss::Percent).unwrap();
        assert_eq!(told(third), "-A ECHOTUNE -s 10.99.0.1 -m statistic --mode random --probability 0.3 -j DROP");
        for text in ["0", "101", "-1", "x", "NaN"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn loopback_cannot_be_cut() {
        let cut = Cut { from: Region::Us, to: Region::Eu, one_way: false, loss: Loss::Silence };
        assert!(matches!(Network::Loopback.cut(cut).await, Err(TestbedError::Uncuttable)));
        let alone = Cut { to: Region::Us, ..cut };
        assert!(matches!(Network::Namespaces.cut(alone).await, Err(TestbedError::CutOfOne(Region::Us))));
    }

    #[tokio::test]
    async fn work_within_a_region_comes_back() {
        assert_eq!(Network::Loopback.within(Region::Ap, || 41 + 1).await.unwrap(), 42);
    }
}
