//! What is done to the platform, one thing after the other.

use std::{fmt, str::FromStr, time::Duration};

use serde::Serialize;
use tokio::time::sleep;

use super::{Drive, DriveError, Notes, Program, Programs};
use crate::{
    Cut, Loss, Network, Part, Plan, Region, Silent, Testbed,
    history::{Entry, Op, Outcome},
};

/// Something that fails on purpose, and is mended after a while.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// A program is killed and started again.
    Kill(Program, Region),
    /// A server is killed and started again on its data.
    KillPart(Part),
    /// A server is frozen.
    Pause(Part),
    /// Two regions cannot reach each other, or one of them not the other.
    Partition {
        /// From whom.
        from: Region,
        /// To whom.
        to: Region,
        /// Whether only this way.
        one_way: bool,
    },
    /// As many of a hundred packets between two regions vanish.
    Loss(Region, Region, u8),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(program, region) => write!(formatter, "kill {program}/{region}"),
            Self::KillPart(part) => write!(formatter, "kill {part}"),
            Self::Pause(part) => write!(formatter, "pause {part}"),
            Self::Partition { from, to, one_way: false } => write!(formatter, "partition {from} {to}"),
            Self::Partition { from, to, one_way: true } => write!(formatter, "partition {from} to {to} alone"),
            Self::Loss(from, to, percent) => write!(formatter, "lose {percent} % between {from} and {to}"),
        }
    }
}

/// What was done, and how long clients felt it.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// What was done.
    pub fault: String,
    /// For how long, in seconds.
    pub seconds: f64,
    /// Operations acknowledged meanwhile.
    pub ok: usize,
    /// Refused.
    pub failed: usize,
    /// Of unknown outcome.
    pub unknown: usize,
    /// How long after it was mended the last operation ended that was neither acknowledged nor refused for a reason, in
    /// seconds.
    pub felt_after_s: f64,
}

impl Fault {
    /// Those that take a minute or two: every kind, once.
    ///
    /// # Panics
    ///
    /// Never: the names are of parts.
    pub fn quick(plan: &Plan) -> Vec<Self> {
        let part = |name: &str| Part::from_str(name).expect("a part");
        let (us, eu, ap) = (Region::Us, Region::Eu, Region::Ap);
        let mirrors = plan.parts().into_iter().filter(|part| part.to_string().starts_with("mirror/"));
        let mut faults = vec![
            Self::Kill(Program::Users, us),
            Self::Kill(Program::Recommendations, eu),
            Self::KillPart(part("kafka/us/1")),
            Self::KillPart(part("cassandra/eu")),
            Self::Pause(part("kafka/ap/1")),
            Self::Pause(part("cassandra/ap")),
        ];
        faults.extend(mirrors.take(1).map(Self::KillPart));
        if plan.network == Network::Namespaces {
            faults.push(Self::Partition { from: us, to: eu, one_way: false });
            faults.push(Self::Partition { from: eu, to: ap, one_way: true });
            faults.push(Self::Loss(ap, us, 30));
        }
        faults
    }

    async fn begin(&self, testbed: &Testbed, programs: &Programs) -> Result<(), DriveError> {
        match self {
            Self::Kill(program, region) => programs.kill(*region, *program).await?,
            Self::KillPart(part) => testbed.kill(*part).await?,
            Self::Pause(part) => testbed.pause(*part)?,
            Self::Partition { from, to, one_way } => {
                let cut = Cut { from: *from, to: *to, one_way: *one_way, loss: Loss::Silence };
                testbed.partition(cut).await?;
            }
            Self::Loss(from, to, percent) => {
                let percent = percent.to_string().parse().map_err(DriveError::Program)?;
                let cut = Cut { from: *from, to: *to, one_way: false, loss: Loss::Percent(percent) };
                testbed.partition(cut).await?;
            }
        }
        Ok(())
    }

    async fn mend(&self, testbed: &Testbed, programs: &Programs) -> Result<(), DriveError> {
        match self {
            Self::Kill(program, region) => {
                programs.launch(*region, *program)?;
                programs.ready(*region, *program).await?;
            }
            Self::KillPart(part) => testbed.start(*part, &Silent).await?,
            Self::Pause(part) => testbed.resume(*part)?,
            Self::Partition { .. } | Self::Loss(..) => testbed.heal().await?,
        }
        Ok(())
    }
}

/// Does one thing after the other; programs that end meanwhile are started again.
pub(super) async fn carry_out(
    drive: &Drive,
    testbed: &Testbed,
    programs: &Programs,
    notes: &Notes,
    tell: &dyn Fn(&str),
) -> Result<Vec<Told>, DriveError> {
    let mut told = Vec::new();
    watch(drive.rest, programs, None, tell).await?;
    for fault in &drive.faults {
        tell(&fault.to_string());
        let began = notes.now();
        fault.begin(testbed, programs).await?;
        watch(drive.fault, programs, Some(fault), tell).await?;
        fault.mend(testbed, programs).await?;
        let mended = notes.now();
        watch(drive.rest, programs, None, tell).await?;
        told.push(felt(fault, began, mended, notes));
    }
    Ok(told)
}

/// Waits, and starts programs again that end by themselves.
async fn watch(
    time: Duration,
    programs: &Programs,
    but: Option<&Fault>,
    tell: &dyn Fn(&str),
) -> Result<(), DriveError> {
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        sleep(Duration::from_millis(200)).await;
        for region in programs.regions() {
            for program in [Program::Users, Program::Recommendations] {
                let is_down = matches!(but, Some(Fault::Kill(of, at)) if *of == program && at == region);
                if !is_down && programs.revive(*region, program)? {
                    tell(&format!("{program} in {region} has ended by itself and is started again"));
                }
            }
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of an hour")]
fn felt(fault: &Fault, began: u64, mended: u64, notes: &Notes) -> Told {
    let entries = notes.entries();
    let during: Vec<_> = entries.iter().filter(|entry| entry.ended >= began && entry.began <= mended).collect();
    let count = |outcome| during.iter().filter(|entry| entry.outcome == outcome).count();
    // Of two who claim a name one is refused, which is no harm.
    let is_harm = |entry: &&Entry| match entry.outcome {
        Outcome::Ok => false,
        Outcome::Failed => !matches!(entry.op, Op::Claim { .. }),
        Outcome::Unknown => true,
    };
    let last = entries.iter().filter(is_harm).filter(|entry| entry.ended > mended);
    let last = last.map(|entry| entry.ended).max().unwrap_or(mended);
    Told {
        fault: fault.to_string(),
        seconds: (mended - began) as f64 / 1e6,
        ok: count(Outcome::Ok),
        failed: count(Outcome::Failed),
        unknown: count(Outcome::Unknown),
        felt_after_s: (last - mended) as f64 / 1e6,
    }
}
