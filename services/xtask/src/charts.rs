//! The charts: linted, rendered with each file of values below their `ci`, refused where values are wrong, and every
//! configuration that comes out is loaded by the very program that it is for, which must end in the time of its pods.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, bail, ensure};

use crate::{ALL, Excluded, e2e::target, image::text};

const FOLDER: &str = "charts";
/// The version that is rendered for, where there is no cluster to ask.
const KUBERNETES: &str = "1.34.0";
/// Seconds that background work has at the end, however long what was before it took: as the lifecycle of the programs
/// says.
const LEAST: u64 = 10;
const CRDS: &str = "charts/echotune-operator-crds/files/crds.yaml";

/// A chart of a program.
struct Chart {
    name: &'static str,
    program: &'static str,
    /// The key of its ConfigMap.
    config: &'static str,
    /// Values that must be refused, and what is told.
    refused: &'static [(&'static str, &'static str)],
}

const CHARTS: [Chart; 2] = [
    Chart {
        name: "echotune-operator",
        program: "echotune-operator",
        config: "operator.toml",
        refused: &[("replicaz=2", "replicaz"), ("replicas=0", "replicas"), ("image.digest=abc", "digest")],
    },
    Chart {
        name: "echotune",
        program: "echotune-gateway",
        config: "gateway.toml",
        refused: &[
            ("gateway.replicaz=2", "replicaz"),
            ("global.region=EU West", "region"),
            ("regions.peers.us=http://mcp.us.example.org:80", "peers"),
        ],
    },
];

pub(crate) fn check(excluded: &mut Excluded) -> anyhow::Result<()> {
    resources()?;
    let Some(helm) = helm()? else {
        excluded.add("charts: no Helm here; `cargo xtask testbed where-helm --build` builds it by Go");
        return Ok(());
    };
    lint(&helm, "echotune-operator-crds", None)?;
    let rendered = render(&helm, "echotune-operator-crds", &[], &[])?;
    ensure!(rendered.matches("kind: CustomResourceDefinition").count() == 2, "two resources, not:\n{rendered}");
    for chart in &CHARTS {
        chart.check(&helm)?;
    }
    Ok(())
}

/// Helm that the testbed has built.
fn helm() -> anyhow::Result<Option<PathBuf>> {
    let told = run("echotune-testbed", &["where-helm"])?;
    let path = String::from_utf8(told.stdout)?;
    Ok(told.status.success().then(|| PathBuf::from(path.trim())))
}

/// What the chart installs is what the operator of these sources says.
fn resources() -> anyhow::Result<()> {
    let said = said("echotune-operator", &["crds"])?;
    let kept = fs::read_to_string(CRDS).with_context(|| CRDS.to_owned())?;
    ensure!(
        said == kept,
        "{CRDS} is not what the operator says; write it anew: \
         cargo run -p echotune-controller --bin echotune-operator -- crds > {CRDS}"
    );
    Ok(())
}

/// What a program of this workspace prints that has nothing to complain of: settings that are missing are told beside
/// those that are printed.
fn said(program: &str, words: &[&str]) -> anyhow::Result<String> {
    let told = run(program, words)?;
    let words = words.join(" ");
    let is_well = told.status.success() && told.stderr.is_empty();
    ensure!(is_well, "{program} {words}: {}", String::from_utf8_lossy(&told.stderr));
    Ok(String::from_utf8(told.stdout)?)
}

/// Runs a program of this workspace, built as the check of features builds it.
fn run(program: &str, words: &[&str]) -> anyhow::Result<Output> {
    crate::cargo(&[&["build", "--bin", program], &ALL[..]].concat())?;
    Command::new(target().join("debug").join(program)).args(words).output().with_context(|| program.to_owned())
}

impl Chart {
    fn check(&self, helm: &Path) -> anyhow::Result<()> {
        let folder = Path::new(FOLDER).join(self.name).join("ci");
        let mut values: Vec<PathBuf> =
            folder.read_dir()?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
        values.sort();
        ensure!(!values.is_empty(), "{} has no values to be rendered with", folder.display());
        for file in &values {
            lint(helm, self.name, Some(file))?;
            let rendered = render(helm, self.name, &["--values", text(file)?], &[])?;
            self.load(&rendered, file).with_context(|| format!("{} with {}", self.name, file.display()))?;
        }
        for (set, told) in self.refused {
            let words = ["--values", text(&values[0])?, "--set", set];
            match render(helm, self.name, &words, &[]) {
                Ok(_) => bail!("{} takes {set}, and should not", self.name),
                Err(error) => ensure!(format!("{error:#}").contains(told), "{set} is refused by {error:#}"),
            }
        }
        println!("{}: {} files of values, {} refusals", self.name, values.len(), self.refused.len());
        Ok(())
    }

    /// Has the program load what was rendered, with the flags that its pods give it.
    fn load(&self, rendered: &str, values: &Path) -> anyhow::Result<()> {
        let config = block(rendered, self.config).with_context(|| format!("no {} in {rendered}", self.config))?;
        check_replicas(rendered, &config)?;
        let name = values.file_stem().context("a name")?.to_string_lossy().into_owned();
        let place = target().join("charts").join(format!("{}-{name}.toml", self.name));
        fs::create_dir_all(place.parent().context("a folder")?)?;
        fs::write(&place, config)?;
        let mut words = vec!["--config", text(&place)?, "--print-config"];
        words.extend(
            rendered
                .lines()
                .filter_map(|line| line.trim().strip_prefix("- "))
                .filter(|word| word.starts_with("--set=")),
        );
        check_way_down(rendered, &said(self.program, &words)?)
    }
}

/// Pods must have more time than the way down takes at the most: one that is killed before loses what comes last.
fn check_way_down(rendered: &str, config: &str) -> anyhow::Result<()> {
    let given = given(rendered).context("no terminationGracePeriodSeconds")?;
    let takes = way_down(config).context("the configuration does not say what the way down takes")?;
    ensure!(takes < given, "the way down takes up to {takes} s, and pods have {given} s");
    Ok(())
}

/// What a replica asks of the others it asks by the name of a service that has the address of each of them.
fn check_replicas(rendered: &str, config: &str) -> anyhow::Result<()> {
    let name = |line: &str| Some(line.strip_prefix("lists_from = [\"http://")?.split(':').next()?.to_owned());
    for name in config.lines().filter_map(name) {
        let named = format!("  name: {name}\n");
        let is_it = |one: &str| ["kind: Service\n", &named, "clusterIP: None\n"].iter().all(|part| one.contains(part));
        ensure!(rendered.split("\n---").any(is_it), "no service without an address of its own is called {name}");
    }
    Ok(())
}

/// Seconds that pods have to end.
fn given(rendered: &str) -> Option<u64> {
    let mut lines = rendered.lines();
    lines.find_map(|line| line.trim().strip_prefix("terminationGracePeriodSeconds:")?.trim().parse().ok())
}

/// Seconds that the way down takes at the most by a configuration in full.
fn way_down(config: &str) -> Option<u64> {
    let of = |key: &str| {
        let mut lines = config.lines();
        let value = lines.find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='))?;
        seconds(value.split('"').nth(1)?)
    };
    Some(of("notice")? + of("drain_timeout")? + LEAST + of("flush_timeout")?)
}

/// A time as configurations have it, such as `5m 15s`.
fn seconds(period: &str) -> Option<u64> {
    let parts = period.split_whitespace().map(|part| {
        let (number, unit) = part.split_at(part.find(|one: char| !one.is_ascii_digit())?);
        let each = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        Some(number.parse::<u64>().ok()? * each)
    });
    parts.sum()
}

fn lint(helm: &Path, chart: &str, values: Option<&Path>) -> anyhow::Result<()> {
    let mut command = Command::new(helm);
    command.args(["lint", "--strict", "--quiet", "--kube-version", KUBERNETES]).arg(Path::new(FOLDER).join(chart));
    if let Some(values) = values {
        command.arg("--values").arg(values);
    }
    let told = command.output()?;
    ensure!(told.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&told.stdout));
    Ok(())
}

fn render(helm: &Path, chart: &str, values: &[&str], more: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(helm);
    command
        .args(["template", "release", "--namespace", "echotune-system", "--kube-version", KUBERNETES])
        .arg(Path::new(FOLDER).join(chart));
    let told = command.args(values).args(more).output()?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    Ok(String::from_utf8(told.stdout)?)
}

/// The text of a key that is written as a block.
fn block(yaml: &str, key: &str) -> Option<String> {
    let mut lines = yaml.lines().skip_while(|line| line.trim() != format!("{key}: |"));
    let head = lines.next()?;
    let depth = head.len() - head.trim_start().len();
    let inside = |line: &&str| line.trim().is_empty() || line.len() - line.trim_start().len() > depth;
    let lines: Vec<&str> = lines.take_while(inside).collect();
    let indent =
        lines.iter().filter(|line| !line.trim().is_empty()).map(|line| line.len() - line.trim_start().len()).min()?;
    Some(lines.iter().map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_and_freed_of_its_indentation() {
        let yaml = "data:\n  other: x\n  a.toml: |\n    one = 1\n\n    [two]\n      three = 3\nkind: ConfigMap\n";
        assert_eq!(block(yaml, "a.toml").as_deref(), Some("one = 1\n\n[two]\n  three = 3\n"));
        assert_eq!(block(yaml, "b.toml"), None);
    }

    #[test]
    fn a_way_down_that_takes_all_the_time_that_pods_have_is_found() {
        let rendered = "spec:\n  terminationGracePeriodSeconds: 330\n";
        let config = |drain: &str| {
            format!("notice = \"5s\"  # file\ndrain_timeout = \"{drain}\"\n# Spans.\nflush_timeout = \"5s\"\n")
        };
        assert!(check_way_down(rendered, &config("5m 9s")).is_ok());
        let told = check_way_down(rendered, &config("310s")).expect_err("nothing to spare").to_string();
        assert_eq!(told, "the way down takes up to 330 s, and pods have 330 s");
        assert!(check_way_down(rendered, "notice = \"5s\"\n").is_err());
        assert_eq!((seconds("1h 1m 1s"), seconds("5 bells"), seconds("5ms")), (Some(3_661), None, None));
    }

    #[test]
    fn replicas_that_are_asked_by_a_name_that_no_service_has_are_found() {
        let service =
            |name: &str, more: &str| format!("kind: Service\nmetadata:\n  name: {name}\nspec:\n{more}\n---\n");
        let config = "lists_from = [\"http://all:7471\"]\n";
        assert!(check_replicas(&service("all", "  clusterIP: None\n"), config).is_ok());
        for rendered in [service("one", "  clusterIP: None\n"), service("all", "  type: ClusterIP\n")] {
            let told = check_replicas(&rendered, config).expect_err("nobody is there").to_string();
            assert_eq!(told, "no service without an address of its own is called all");
        }
        assert!(check_replicas("", "listen = \"0.0.0.0:7470\"\n").is_ok());
    }

    /// By the templates themselves, where there is no Helm.
    #[test]
    fn pods_have_more_time_than_the_way_down_takes_by_default_and_at_the_least() {
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts");
        for (chart, template) in [("echotune", "gateway-config.yaml"), ("echotune-operator", "config.yaml")] {
            let read = |path: &str| fs::read_to_string(charts.join(chart).join(path)).expect("part of the chart");
            let by_default = given(&read("values.yaml")).expect("a value");
            let schema = read("values.schema.json");
            let (_, rest) = schema.split_once("\"terminationGracePeriodSeconds\"").expect("in the schema");
            let (_, rest) = rest.split_once("\"minimum\": ").expect("a minimum");
            let least: u64 = rest.split(',').next().and_then(|least| least.trim().parse().ok()).expect("a number");
            let template = read(&format!("templates/{template}"));
            let (before, rest) = template.split_once("{{ sub (int ").expect("a part of the time");
            let (_, rest) = rest.split_once(") ").expect("how much less");
            let (less, after) = rest.split_once(" }}").expect("its end");
            let less: u64 = less.parse().expect("a number");
            for given in [by_default, least] {
                assert!(given > less, "{chart}: no time for what is under way in {given} s");
                // What the template does not say is as the programs have it.
                let config = format!("{before}{}{after}\nnotice = \"0s\"\n", given - less);
                check_way_down(&format!("terminationGracePeriodSeconds: {given}"), &config).expect(chart);
            }
        }
    }
}
