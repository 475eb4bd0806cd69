//! What the command line says of Kubernetes.

use std::{fs::File, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use echotune_testbed::{Cluster, Component, Image, KubernetesPlan};

/// A cluster to be.
#[derive(Debug, Args)]
pub(super) struct Kubernetes {
    /// Port of the API server on 127.0.0.1; the next five are taken too. Ports of clusters side by side are ten apart.
    #[arg(long, default_value_t = 16_443)]
    port: u16,
    /// Which of 16 ranges of addresses it has, from 0 to 15 [default: port / 10 % 16].
    #[arg(long)]
    slot: Option<u8>,
    /// Simulated nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// Region of the nodes, a label; zones are this name and a, b or c.
    #[arg(long, default_value = "local")]
    region: String,
    /// Add a real node, on which containers run. Needs root, containerd, runc, plugins of CNI and iptables.
    #[arg(long)]
    real_node: bool,
    /// One more flag for a part, such as kube-controller-manager:--node-monitor-grace-period=10s. Can be given again.
    #[arg(long = "flag", value_name = "PART:--FLAG", value_parser = flag)]
    flags: Vec<(Component, String)>,
}

fn flag(text: &str) -> anyhow::Result<(Component, String)> {
    let (component, flag) = text.split_once(':').context("say PART:--FLAG=VALUE")?;
    Ok((component.parse()?, flag.to_owned()))
}

impl Kubernetes {
    pub(super) fn plan(self, run: PathBuf) -> KubernetesPlan {
        let Self { port, slot, nodes, region, real_node, flags } = self;
        KubernetesPlan { run, port, slot, nodes, region, real_node, flags }
    }
}

/// An image to be made.
#[derive(Debug, Args)]
pub(super) struct ImageOf {
    /// Write an archive to this file instead of bringing the image to the real node.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Whom containers run as, such as 65532:65532.
    #[arg(long)]
    user: Option<String>,
    /// A variable. Can be given again.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// An argument of the program unless whoever starts it gives others. Can be given again.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    arg: Vec<String>,
    /// What is told of it. Can be given again.
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Host, path and tag, such as localhost/demo:1.
    name: String,
    /// The folder that containers see as /.
    folder: PathBuf,
    /// Program in it and its first arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    entrypoint: Vec<String>,
}

impl ImageOf {
    pub(super) async fn make(self, open: impl FnOnce() -> anyhow::Result<Cluster>) -> anyhow::Result<()> {
        let Self { to, user, env, arg, label, name, folder, entrypoint } = self;
        let image = Image { name, root: folder, entrypoint, arguments: arg, env, user, labels: label };
        match to {
            None => Ok(open()?.import(&image).await?),
            Some(path) => {
                let file = File::create(&path).with_context(|| path.display().to_string())?;
                Ok(image.write(file)?)
            }
        }
    }
}
