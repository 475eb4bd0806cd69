//! An image of a folder, made without a daemon and without a registry: an archive that is a layout of OCI's image
//! specification and has what `docker save` writes beside it, so that containerd, Docker, Podman, kind and tools of
//! registries read it.
//!
//! The same files and settings give the same bytes, wherever and whenever they lie: entries are sorted, without times
//! and owners.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read as _, Seek as _, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The beginning of all time, for what must have one.
const CREATED: &str = "1970-01-01T00:00:00Z";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CHUNK: usize = 1 << 16;
const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
/// What Docker looked for before it knew layouts.
const DOCKER: &str = "manifest.json";
const OF_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OF_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OF_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OF_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Host, path and tag, such as `localhost/demo:1`. A name without a host would be given that of a registry.
    pub name: String,
    /// The folder that containers see as `/`.
    pub root: PathBuf,
    /// Program and first arguments; empty for none.
    pub entrypoint: Vec<String>,
    /// Arguments after those, unless whoever starts it gives others.
    pub arguments: Vec<String>,
    /// Variables as `NAME=VALUE`, besides a path for programs.
    pub env: Vec<String>,
    /// Whom containers run as, such as `65532:65532`; without one, root.
    pub user: Option<String>,
    /// What is told of it, as `NAME=VALUE`; names of OCI begin with `org.opencontainers.image.`.
    pub labels: Vec<String>,
}

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A name that containerd would read as one of a registry.
    #[error("image '{0}' must be named HOST/PATH:TAG in small letters, such as localhost/demo:1")]
    Name(String),
    /// A variable or a label without a value.
    #[error("'{0}' is not NAME=VALUE")]
    Pair(String),
    /// A file that is neither a file, a folder nor a link.
    #[error("{} is neither a file, a folder nor a symbolic link", .0.display())]
    Kind(PathBuf),
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("the archive cannot be written: {0}")]
    Archive(#[from] io::Error),
}

impl Image {
    /// An image of a folder that runs a program of it.
    pub fn new(name: impl Into<String>, root: impl Into<PathBuf>, entrypoint: &[&str]) -> Self {
        let entrypoint = entrypoint.iter().map(ToString::to_string).collect();
        Self {
            name: name.into(),
            root: root.into(),
            entrypoint,
            arguments: Vec::new(),
            env: Vec::new(),
            user: None,
            labels: Vec::new(),
        }
    }

    /// Writes the archive. The layer goes through a file for temporary files, since its digest stands before it.
    ///
    /// # Errors
    ///
    /// What of the image cannot be, and the file that cannot be read.
    pub fn write(&self, to: impl Write) -> Result<(), ImageError> {
        self.validate()?;
        let mut layer = tempfile::tempfile()?;
        layer_of(&self.root, BufWriter::new(&mut layer))?;
        let digest = digest(&mut layer)?;
        let length = layer.seek(io::SeekFrom::End(0))?;
        layer.rewind()?;
        let config = self.config(&digest)?.to_string();
        let config_place = blob(&hex(&Sha256::digest(&config)));
        let layer_place = blob(&digest);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OF_MANIFEST,
            "config": descriptor(OF_CONFIG, &hex(&Sha256::digest(&config)), config.len() as u64),
            "layers": [descriptor(OF_LAYER, &digest, length)],
        })
        .to_string();
        let docker = json!([{"Config": config_place, "RepoTags": [self.name], "Layers": [layer_place]}]).to_string();

        let mut archive = Builder::new(to);
        for (name, text) in [
            (LAYOUT.to_owned(), json!({"imageLayoutVersion": "1.0.0"}).to_string()),
            (INDEX.to_owned(), self.index(&manifest)),
            (DOCKER.to_owned(), docker),
            (blob(&hex(&Sha256::digest(&manifest))), manifest),
            (config_place, config),
        ] {
            archive.append_data(&mut header(EntryType::Regular, 0o644, text.len() as u64), name, text.as_bytes())?;
        }
        archive.append_data(&mut header(EntryType::Regular, 0o644, length), layer_place, &layer)?;
        Ok(archive.into_inner()?.flush()?)
    }

    /// What a layout holds: this image, by its name for containerd and by its tag for others.
    fn index(&self, manifest: &str) -> String {
        let tag = self.name.rsplit_once(':').map_or("", |(_, tag)| tag);
        let mut entry = descriptor(OF_MANIFEST, &hex(&Sha256::digest(manifest)), manifest.len() as u64);
        entry["annotations"] = json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag});
        entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
        json!({"schemaVersion": 2, "mediaType": OF_INDEX, "manifests": [entry]}).to_string()
    }

    fn validate(&self) -> Result<(), ImageError> {
        let fits = |text: &str| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/:".contains(&byte);
            !text.is_empty() && text.bytes().all(inner)
        };
        // A colon of a port is in the host, which is before the first slash.
        let named = self
            .name
            .split_once('/')
            .filter(|(host, _)| fits(host) && (host.contains(['.', ':']) || *host == "localhost"));
        let tagged = named.and_then(|(_, path)| path.split_once(':'));
        if !tagged.is_some_and(|(path, tag)| fits(path) && fits(tag) && !tag.contains([':', '/'])) {
            return Err(ImageError::Name(self.name.clone()));
        }
        self.env.iter().chain(&self.labels).try_for_each(|one| pair(one).map(|_| ()))
    }

    /// The configuration of OCI's image specification.
    fn config(&self, layer: &str) -> Result<Value, ImageError> {
        let env: Vec<&str> = std::iter::once(PATH).chain(self.env.iter().map(String::as_str)).collect();
        let mut config = json!({"Env": env, "WorkingDir": "/"});
        if !self.entrypoint.is_empty() {
            config["Entrypoint"] = json!(self.entrypoint);
        }
        if !self.arguments.is_empty() {
            config["Cmd"] = json!(self.arguments);
        }
        if let Some(user) = &self.user {
            config["User"] = json!(user);
        }
        for label in &self.labels {
            let (name, value) = pair(label)?;
            config["Labels"][name] = json!(value);
        }
        Ok(json!({
            "architecture": architecture(),
            "os": "linux",
            "created": CREATED,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        }))
    }
}

/// Of this machine, as OCI names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn pair(text: &str) -> Result<(&str, &str), ImageError> {
    text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| ImageError::Pair(text.to_owned()))
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size})
}

/// Where a layout has what is of a digest.
fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

/// All below a folder as one archive.
fn layer_of(root: &Path, to: impl Write) -> Result<(), ImageError> {
    let mut archive = Builder::new(to);
    append(&mut archive, root, Path::new(""))?;
    Ok(archive.into_inner()?.flush()?)
}

/// What is in a folder, by name, each folder before what is in it.
fn append(archive: &mut Builder<impl Write>, root: &Path, folder: &Path) -> Result<(), ImageError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::File { path, source }
    };
    let here = if folder.as_os_str().is_empty() { root.to_owned() } else { root.join(folder) };
    let entries: io::Result<Vec<_>> = here.read_dir().map_err(failed(&here))?.collect();
    let mut names: Vec<_> = entries.map_err(failed(&here))?.into_iter().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        let within = folder.join(name);
        let path = root.join(&within);
        let found = fs::symlink_metadata(&path).map_err(failed(&path))?;
        let mode = found.permissions().mode() & 0o7777;
        if found.is_dir() {
            let mut name = within.clone().into_os_string();
            name.push("/");
            archive.append_data(&mut header(EntryType::Directory, mode, 0), name, io::empty())?;
            append(archive, root, &within)?;
        } else if found.is_symlink() {
            let target = fs::read_link(&path).map_err(failed(&path))?;
            archive.append_link(&mut header(EntryType::Symlink, 0o777, 0), &within, target)?;
        } else if found.is_file() {
            let file = File::open(&path).map_err(failed(&path))?;
            // A file that grows meanwhile must not break the archive.
            let file = file.take(found.len());
            archive.append_data(&mut header(EntryType::Regular, mode, found.len()), &within, file)?;
        } else {
            return Err(ImageError::Kind(path));
        }
    }
    Ok(())
}

/// Of an entry of nobody and of no time.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn digest(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&digest.finalize())),
            read => digest.update(&chunk[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt as _, symlink},
        time::{Duration, SystemTime},
    };

    use super::*;

    fn put(folder: &Path, name: &str, text: &str, mode: u32) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn bytes(image: &Image) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.write(&mut bytes).unwrap();
        bytes
    }

    /// What an archive holds: names, modes, link targets and bytes.
    fn entries(archive: &[u8]) -> Vec<(String, u32, String, Vec<u8>)> {
        let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let link = entry.link_name().unwrap().map(|target| target.display().to_string()).unwrap_or_default();
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), link, bytes)
        };
        tar::Archive::new(archive).entries().unwrap().map(read).collect()
    }

    #[test]
    fn the_same_files_give_the_same_bytes_wherever_and_whenever_they_lie() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let long = format!("app/{}/{}.js", "deep".repeat(30), "x".repeat(120));
        let mut files =
            vec![("app/run", "#!", 0o755), ("etc/passwd", "app:x:1:1::/:", 0o644), (long.as_str(), "1", 0o600)];
        for folder in &folders {
            for (name, text, mode) in &files {
                put(folder.path(), name, text, *mode);
            }
            symlink("app/run", folder.path().join("init")).unwrap();
            files.reverse();
        }
        let past = SystemTime::now() - Duration::from_secs(86_400);
        File::open(folders[1].path().join("app/run")).unwrap().set_modified(past).unwrap();
        let [one, other] =
            folders.each_ref().map(|folder| bytes(&Image::new("localhost/x:1", folder.path(), &["/init"])));
        assert_eq!(one, other);

        let whole = entries(&one);
        let names: Vec<_> = whole.iter().map(|(name, ..)| name.as_str()).collect();
        let layer = entries(&whole[5].3);
        assert_eq!((&names[..3], whole.len()), (&[LAYOUT, INDEX, DOCKER][..], 6));
        let shown: Vec<_> = layer.iter().map(|(name, mode, link, _)| (name.as_str(), *mode, link.as_str())).collect();
        assert_eq!(shown.len(), 7, "{shown:?}");
        assert_eq!(shown[0].0, "app/");
        assert!(shown.contains(&("app/run", 0o755, "")) && shown.contains(&("init", 0o777, "app/run")), "{shown:?}");
        assert!(shown.contains(&(long.as_str(), 0o600, "")), "{shown:?}");
    }

    #[test]
    fn digests_are_those_of_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "run", "#!", 0o755);
        let image = Image {
            env: vec!["A=b=c".into()],
            user: Some("1000".into()),
            labels: vec!["org.opencontainers.image.title=x=y".into()],
            arguments: vec!["y".into()],
            ..Image::new("registry.example:5000/a/b:2", folder.path(), &["/run", "x"])
        };
        let whole = entries(&bytes(&image));
        let json = |at: usize| serde_json::from_slice::<Value>(&whole[at].3).unwrap();
        let digest = |at: usize| hex(&Sha256::digest(&whole[at].3));
        let described = |kind, at: usize| descriptor(kind, &digest(at), whole[at].3.len() as u64);
        for (at, (name, ..)) in whole.iter().enumerate().skip(3) {
            assert_eq!(*name, blob(&digest(at)));
        }
        let (index, docker, manifest, config) = (json(1), json(2), json(3), json(4));
        assert_eq!(index["manifests"][0]["digest"], described(OF_MANIFEST, 3)["digest"]);
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "registry.example:5000/a/b:2");
        assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "2");
        assert_eq!(docker[0]["RepoTags"], json!(["registry.example:5000/a/b:2"]));
        assert_eq!((&docker[0]["Config"], &docker[0]["Layers"]), (&json!(whole[4].0), &json!([whole[5].0])));
        assert_eq!(manifest["config"], described(OF_CONFIG, 4));
        assert_eq!(manifest["layers"], json!([described(OF_LAYER, 5)]));
        assert_eq!(config["rootfs"]["diff_ids"], json!([format!("sha256:{}", digest(5))]));
        assert_eq!(
            config["config"],
            json!({"Entrypoint": ["/run", "x"], "Env": [PATH, "A=b=c"], "User": "1000", "WorkingDir": "/",
                "Cmd": ["y"], "Labels": {"org.opencontainers.image.title": "x=y"}})
        );
    }

    #[test]
    fn what_cannot_be_an_image_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |image: Image| image.write(io::sink()).unwrap_err().to_string();
        for name in [
            "demo:1",
            "localhost/demo",
            "localhost/Demo:1",
            "library/demo:1",
            "localhost/a:1:2",
            "localhost/:1",
            "/a:1",
            "localhost/a:1/b",
        ] {
            let told = refused(Image::new(name, folder.path(), &[]));
            assert_eq!(told, ImageError::Name(name.into()).to_string());
        }
        let image = Image::new("localhost/a:1", folder.path(), &[]);
        assert_eq!(refused(Image { env: vec!["=1".into()], ..image.clone() }), "'=1' is not NAME=VALUE");
        let told = refused(Image { labels: vec!["title".into()], ..image.clone() });
        assert_eq!(told, "'title' is not NAME=VALUE");
        let told = refused(Image { root: folder.path().join("none"), ..image.clone() });
        assert!(told.contains("/none: No such file"), "{told}");
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        assert!(refused(image).ends_with("/socket is neither a file, a folder nor a symbolic link"));
    }
}
