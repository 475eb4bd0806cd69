//! The files of a cluster, all below one folder.

use std::{
    fs::{self, DirBuilder, File},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{Component, KubernetesPlan};
use crate::{TestbedError, launch::Home};

/// Below the run folder.
const NAME: &str = "kubernetes";

/// The folder of a cluster. Keys lie in it, so that nobody else may read it.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn of(plan: &KubernetesPlan) -> Self {
        Self::below(&plan.run)
    }

    pub(crate) fn below(run: &Path) -> Self {
        Self(run.join(NAME))
    }

    pub(crate) fn make(&self) -> Result<(), TestbedError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(TestbedError::file(&self.0))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn home(&self, component: Component) -> Home {
        Home::below(&self.0, component)
    }

    /// The kubeconfig of the cluster's administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// A file of the certificates and keys.
    pub(crate) fn pki(&self, name: &str) -> PathBuf {
        self.file(&format!("pki/{name}"))
    }

    /// The kubeconfig of a part.
    pub(crate) fn config(&self, name: &str) -> PathBuf {
        self.file(&format!("conf/{name}"))
    }

    /// What the real node keeps on disk.
    pub(crate) fn node_state(&self) -> PathBuf {
        self.file("node-state")
    }

    /// A file of that.
    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.node_state().join(name)
    }
}

/// Writes a file that nobody else may read, and the folders on the way to it.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), TestbedError> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(TestbedError::file(path))
}
