//! Images of containers, made without a daemon: `cargo xtask image NAME… | all`.
//!
//! An image is what one program needs and nothing else: no shell, no package manager, nobody to log in as. It runs as
//! somebody without rights, and nothing in it need be written. Each is one archive, which is a layout of OCI and what
//! `docker save` writes at once; the same sources give the same bytes.

mod libraries;
mod node;
mod python;
mod tree;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    e2e::{run as run_command, target},
    testbed,
};

/// Who runs in all of them: "nonroot" of most images that are as bare.
pub(crate) const USER: &str = "65532:65532";
const USAGE: &str = "usage: cargo xtask image NAME…|all [--output DIR] [--registry HOST[/PATH]] [--tag TAG] \
                     [--arch amd64|arm64] [--quick]";
/// Where programs are in their images.
const PROGRAMS: &str = "usr/local/bin";
/// Authorities of certificates, where most systems have them.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
/// What the C library reads of whoever runs, and of where names are looked up.
const ETC: [(&str, &str); 3] = [
    ("passwd", "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n"),
    ("group", "root:x:0:\nnonroot:x:65532:\n"),
    ("nsswitch.conf", "hosts: files dns\n"),
];

/// How an image is made.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    about: &'static str,
    /// Fills the folder that becomes `/`.
    fill: fn(&Path, &Options) -> anyhow::Result<Started>,
    env: &'static [&'static str],
}

/// What containers run.
struct Started {
    program: String,
    /// What it is told unless whoever starts it tells it more.
    arguments: Vec<String>,
}

/// A program of this workspace.
struct Program {
    package: &'static str,
    name: &'static str,
    features: &'static str,
    /// What it is to Cargo: a `bin` or an `example`.
    kind: &'static str,
}

const OPERATOR: Program = Program::new("echotune-controller", "echotune-operator", "otlp,tls");
const GATEWAY: Program = Program::new("echotune-gateway", "echotune-gateway", "region");
const SERVERS: Program = Program::new("echotune-mcp-servers", "echotune-mcp-servers", "region");
const PLATFORM: Program = Program::new("echotune", "echotune", "");
const FIXTURE: Program = Program { kind: "example", ..Program::new("echotune-gateway", "conformance", "") };

/// All there are.
pub(crate) const RECIPES: [Recipe; 8] = [
    Recipe {
        name: "echotune-operator",
        about: "Scales MCP servers on Kubernetes by their sessions and calls.",
        fill: |root, options| OPERATOR.started(root, options),
        env: &[],
    },
    Recipe {
        name: "echotune-gateway",
        about: "One MCP endpoint before many servers; also the adapter of servers that speak on standard input.",
        fill: |root, options| GATEWAY.started(root, options),
        env: &[],
    },
    Recipe {
        name: "echotune-mcp-servers",
        about: "The MCP servers of the platform, over its users and recommendations.",
        fill: |root, options| SERVERS.started(root, options),
        env: &[],
    },
    Recipe {
        name: "echotune",
        about: "The whole platform in one process.",
        fill: |root, options| PLATFORM.started(root, options),
        env: &[],
    },
    Recipe {
        name: "mcp-echotune",
        about: "The platform's MCP servers on standard input, over a platform elsewhere.",
        fill: |root, options| {
            let program = PLATFORM.put(root, options)?;
            adapted(root, options, &[&program, "mcp", "serve", "catalogue"])
        },
        env: &["ECHOTUNE_DATA=/tmp"],
    },
    Recipe {
        name: "mcp-everything",
        about: "The reference server of the Model Context Protocol, with Node.js.",
        fill: node::fill,
        env: &["NODE_ENV=production"],
    },
    Recipe { name: "mcp-time", about: "mcp-server-time, with Python.", fill: python::fill, env: python::ENV },
    Recipe {
        name: "mcp-conformance",
        about: "What the conformance suite of the protocol asks of a server.",
        fill: |root, options| {
            let program = FIXTURE.put(root, options)?;
            Ok(Started { program, arguments: vec!["server".to_owned(), "0.0.0.0:8080".to_owned()] })
        },
        env: &[],
    },
];

/// What images are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where archives go.
    pub(crate) output: PathBuf,
    /// Host and path before their names.
    pub(crate) registry: String,
    pub(crate) tag: String,
    /// Debug builds that use this machine's libraries: for tries, since they are built by every test already.
    pub(crate) quick: bool,
}

impl Options {
    pub(crate) fn new() -> Self {
        Self {
            output: target().join("images"),
            registry: "localhost".to_owned(),
            tag: env!("CARGO_PKG_VERSION").to_owned(),
            quick: false,
        }
    }

    /// The name by which an image is pulled.
    pub(crate) fn full_name(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.registry, self.tag)
    }

    /// Takes what is told, but for names of images.
    fn read<'a>(words: &[&'a str]) -> anyhow::Result<(Self, Vec<&'a str>)> {
        let (mut options, mut names, mut words) = (Self::new(), Vec::new(), words.iter());
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value\n{USAGE}"));
            match *word {
                "--output" => options.output = value()?.into(),
                "--registry" => options.registry = value()?.trim_end_matches('/').to_owned(),
                "--tag" => options.tag = (*value()?).to_owned(),
                "--arch" => check_architecture(value()?)?,
                "--quick" => options.quick = true,
                flag if flag.starts_with('-') => bail!("{flag} is not known\n{USAGE}"),
                name => names.push(name),
            }
        }
        Ok((options, names))
    }
}

/// Interpreters, libraries and the target of the compiler are those of this machine.
fn check_architecture(wanted: &str) -> anyhow::Result<()> {
    let here = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    ensure!(
        wanted == here,
        "images are made for the machine they are made on, which is {here}: make those for {wanted} on such a one"
    );
    Ok(())
}

/// `NAME… | all`, and options.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<()> {
    let (options, names) = Options::read(words)?;
    let known = || RECIPES.map(|recipe| recipe.name);
    let names = match names.as_slice() {
        [] => bail!("name an image, or all; there are {}\n{USAGE}", known().join(", ")),
        ["all"] => known().to_vec(),
        names => names.to_vec(),
    };
    make(&names, &options).map(|_| ())
}

/// Makes these images: their archives.
pub(crate) fn make(names: &[&str], options: &Options) -> anyhow::Result<Vec<PathBuf>> {
    let recipe = |name: &&str| {
        let found = RECIPES.iter().find(|recipe| recipe.name == *name);
        let known = RECIPES.map(|recipe| recipe.name).join(", ");
        found.with_context(|| format!("no image is named '{name}'; there are {known}"))
    };
    // Whatever is misspelt is told before anything is built.
    let recipes = names.iter().map(recipe).collect::<anyhow::Result<Vec<_>>>()?;
    fs::create_dir_all(&options.output).with_context(|| options.output.display().to_string())?;
    recipes.into_iter().map(|recipe| recipe.make(options)).collect()
}

impl Recipe {
    fn make(&self, options: &Options) -> anyhow::Result<PathBuf> {
        let start = Instant::now();
        let root = tree::fresh(&target().join("images/roots").join(self.name))?;
        let started = (self.fill)(&root, options).with_context(|| format!("image {}", self.name))?;
        bare(&root)?;
        let libraries = libraries::add(&root)?;
        let archive = options.output.join(format!("{}.tar", self.name));
        let (name, labels) = (options.full_name(self.name), self.labels(options)?);
        let mut words = vec!["image", "--to", text(&archive)?, "--user", USER];
        words.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
        words.extend(self.env.iter().flat_map(|pair| ["--env", pair]));
        words.extend(started.arguments.iter().flat_map(|word| ["--arg", word.as_str()]));
        words.extend([name.as_str(), text(&root)?, started.program.as_str()]);
        testbed::run(&words)?;
        let mib = fs::metadata(&archive)?.len() >> 20;
        let took = start.elapsed().as_secs_f64();
        println!("image {name}: {mib} MiB, {libraries} libraries, in {}; {took:.1} s", archive.display());
        Ok(archive)
    }

    fn labels(&self, options: &Options) -> anyhow::Result<Vec<String>> {
        let head = Command::new("git").args(["rev-parse", "HEAD"]).output().context("git cannot be run")?;
        let revision = String::from_utf8_lossy(&head.stdout).trim().to_owned();
        let pairs = [
            ("title", self.name),
            ("description", self.about),
            ("version", &options.tag),
            ("revision", &revision),
            ("licenses", "Apache-2.0"),
        ];
        Ok(pairs.map(|(name, value)| format!("org.opencontainers.image.{name}={value}")).to_vec())
    }
}

impl Program {
    const fn new(package: &'static str, name: &'static str, features: &'static str) -> Self {
        Self { package, name, features, kind: "bin" }
    }

    /// Builds it and puts it where programs are, without what only debuggers read: its path in the image.
    fn put(&self, root: &Path, options: &Options) -> anyhow::Result<String> {
        let path = Path::new(PROGRAMS).join(self.name);
        let place = root.join(&path);
        tree::copy(&self.build(options.quick)?, &place)?;
        run_command(Command::new("strip").arg("--strip-debug").arg(&place)).context("binutils are needed")?;
        Ok(format!("/{}", path.display()))
    }

    /// An image of it alone.
    fn started(&self, root: &Path, options: &Options) -> anyhow::Result<Started> {
        Ok(Started { program: self.put(root, options)?, arguments: Vec::new() })
    }

    /// Without libraries, so that an adapter runs in whatever image it is brought into; `quick` as tests build it.
    fn build(&self, quick: bool) -> anyhow::Result<PathBuf> {
        let flag = format!("--{}", self.kind);
        let mut words = vec!["build", "--locked", "--package", self.package, &flag, self.name];
        if !self.features.is_empty() {
            words.extend(["--features", self.features]);
        }
        if quick {
            crate::cargo(&words)?;
            return Ok(self.place(&target().join("debug")));
        }
        let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
        words.extend(["--release", "--target", &triple]);
        crate::cargo_with(&words, &[("RUSTFLAGS", "-C target-feature=+crt-static")])?;
        let built = self.place(&target().join(&triple).join("release"));
        ensure!(libraries::of(&[&built])?.is_empty(), "{} needs libraries, and should not", built.display());
        Ok(built)
    }

    /// Where Cargo puts it below the folder of a profile.
    fn place(&self, profile: &Path) -> PathBuf {
        if self.kind == "example" { profile.join("examples").join(self.name) } else { profile.join(self.name) }
    }
}

/// Puts the adapter into an image: it starts a server that speaks on standard input, and speaks HTTP for it.
fn adapted(root: &Path, options: &Options, server: &[&str]) -> anyhow::Result<Started> {
    let program = GATEWAY.put(root, options)?;
    let words = [&["adapter", "--listen", "0.0.0.0:8080", "--"], server].concat();
    Ok(Started { program, arguments: words.into_iter().map(str::to_owned).collect() })
}

/// What every image has: who runs, where names are looked up, whom to trust, and a folder to write in where one is
/// mounted.
fn bare(root: &Path) -> anyhow::Result<()> {
    for (name, text) in ETC {
        tree::write(&root.join("etc").join(name), text)?;
    }
    tree::folder(&root.join("tmp"))?;
    let authorities = Path::new("/").join(AUTHORITIES);
    if authorities.is_file() {
        tree::copy(&authorities, &root.join(AUTHORITIES))?;
    } else {
        println!("EXCLUDED authorities of certificates: {} is not there", authorities.display());
    }
    Ok(())
}

pub(crate) fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no path of letters", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read() {
        let words = ["mcp-time", "--tag", "2", "--registry", "registry.example:5000/a/", "--output", "x", "--quick"];
        let (options, names) = Options::read(&words).expect("right words");
        assert_eq!((names, options.quick, options.output.as_path()), (vec!["mcp-time"], true, Path::new("x")));
        assert_eq!(options.full_name("mcp-time"), "registry.example:5000/a/mcp-time:2");
        let refused = |words: &[&str]| Options::read(words).expect_err("wrong words").to_string();
        assert!(refused(&["all", "--tag"]).starts_with("--tag needs a value\nusage: "));
        assert!(refused(&["--squeeze"]).starts_with("--squeeze is not known\n"));
        assert!(refused(&["--arch", "s390x"]).contains("make those for s390x on such a one"));
    }

    #[test]
    fn a_name_that_is_not_known_is_told_before_anything_is_built() {
        let told = make(&["mcp-tim"], &Options::new()).expect_err("unknown").to_string();
        assert!(told.starts_with("no image is named 'mcp-tim'; there are echotune-operator, "), "{told}");
    }
}
