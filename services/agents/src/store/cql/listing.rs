//! Lists of runs, newest first: by user and month, and all of them by day. A row leads to a run; one whose run is
//! gone is passed over, and removed by its region once it is old.

use std::collections::BTreeMap;

use echotune_model::{Page, PageRequest, RunId};
use futures::{StreamExt as _, TryStreamExt as _, future::try_join, stream};
use uuid::Uuid;

use super::{CqlRunStore, Opened};
use crate::store::{Answer, MAX_PART, RunRecord, RunStore as _, RunStoreError};

const DAY_MS: u64 = 24 * 3_600_000;
/// Whose list has all runs: no user has this name.
pub(super) const ALL: &str = "*";
/// Runs read for a page in one go.
const CHUNK: usize = 16;

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) run: RunId,
    /// Where the run is carried out.
    pub(super) region: String,
}

/// In which partition of a list a run is.
fn period(owner: &str, run: RunId) -> i32 {
    let days = if owner == ALL { 1 } else { 30 };
    i32::try_from(run.made_ms() / (days * DAY_MS)).unwrap_or(i32::MAX)
}

impl CqlRunStore {
    /// Puts a run on the list of its user and on that of all.
    pub(super) async fn list(&self, run: RunId, folded: &str) -> Answer<()> {
        try_join(self.list_for(ALL, run), self.list_for(folded, run)).await.map(drop)
    }

    async fn list_for(&self, owner: &str, run: RunId) -> Answer<()> {
        let (period, at) = (period(owner, run), self.inner.times.now());
        let opened = Opened::Period(owner.to_owned(), period);
        if self.is_new(&opened) {
            self.session().put(&self.statements().put_period, (owner, period, self.region()), at).await?;
            self.open_up(opened);
        }
        let row = (owner, period, run.0, self.region());
        Ok(self.session().put(&self.statements().put_listed, row, at).await?)
    }

    /// Takes a run off the list of its user and off that of all.
    pub(super) async fn unlist(&self, run: RunId, folded: &str) -> Answer<()> {
        // That of the user last: who erases finds the run again as long as it is there.
        self.unlist_for(ALL, run).await?;
        self.unlist_for(folded, run).await
    }

    pub(super) async fn unlist_for(&self, owner: &str, run: RunId) -> Answer<()> {
        let row = (owner, period(owner, run), run.0);
        Ok(self.session().put_at(&self.statements().drop_listed, row, self.inner.times.now().ahead()).await?)
    }

    /// The periods of a list, newest first, and whether this region has runs in each, as far as is known.
    async fn periods(&self, owner: &str) -> Answer<Vec<(i32, bool)>> {
        let (session, statements) = (self.session(), self.statements());
        let (old, told) = try_join(
            session.rows::<(i32,)>(&statements.read_old_periods, (owner,), usize::MAX),
            session.rows::<(i32, String)>(&statements.read_periods, (owner,), usize::MAX),
        )
        .await?;
        let mut periods: BTreeMap<i32, bool> = old.into_iter().map(|(number,)| (number, false)).collect();
        for (number, region) in told {
            *periods.entry(number).or_default() |= region == self.region();
        }
        Ok(periods.into_iter().rev().collect())
    }

    /// Rows of a list that come after a run, `limit` at the most.
    pub(super) async fn listed(&self, owner: &str, after: Option<RunId>, limit: usize) -> Answer<Vec<Listed>> {
        let (newest, mut rows) = (after.map_or(i32::MAX, |after| period(owner, after)), Vec::new());
        let (session, statements) = (self.session(), self.statements());
        for (number, is_own) in self.periods(owner).await? {
            if number > newest {
                continue;
            }
            let room = limit - rows.len();
            let most = i32::try_from(room).unwrap_or(i32::MAX);
            let found: Vec<(Uuid, String)> = match after.filter(|_| number == newest) {
                Some(after) => {
                    session.rows(&statements.read_listed_before, (owner, number, after.0, most), room).await?
                }
                None => session.rows(&statements.read_listed, (owner, number, most), room).await?,
            };
            if found.is_empty() && number < newest && is_own {
                self.close(owner, number).await?;
            }
            rows.extend(found.into_iter().map(|(run, region)| Listed { run: RunId(run), region }));
            if rows.len() == limit {
                break;
            }
        }
        Ok(rows)
    }

    /// Forgets that this region has runs in a period that is empty, once none can be put into it any more: a start
    /// that is repeated puts the run there that its key has led to for a day. Those of other regions may not have
    /// come here, and nobody would find them again, not even who erases.
    async fn close(&self, owner: &str, number: i32) -> Answer<()> {
        let before = RunId::new(self.now_ms().saturating_sub(2 * DAY_MS));
        if number < period(owner, before) {
            let ahead = self.inner.times.now().ahead();
            let row = (owner, number, self.region());
            self.session().put_at(&self.statements().drop_period, row, ahead).await?;
        }
        Ok(())
    }

    /// A page of the list of a user, or of [`ALL`].
    pub(super) async fn page(&self, owner: &str, page: PageRequest) -> Answer<Page<RunRecord>> {
        let bad = || RunStoreError::BadPageToken(page.token.clone());
        let mut after: Option<RunId> =
            if page.token.is_empty() { None } else { Some(page.token.parse().map_err(|_| bad())?) };
        let size = usize::try_from(page.size).unwrap_or(usize::MAX);
        let (mut rows, mut bytes) = (Vec::<RunRecord>::new(), 0);
        loop {
            let wanted = CHUNK.min((size - rows.len()).saturating_add(1));
            let listed = self.listed(owner, after, wanted).await?;
            let Some(last) = listed.last().map(|row| row.run) else {
                return Ok(Page { rows, next: String::new() });
            };
            let read = |row: Listed| async move {
                let record = self.whole(row.run, &self.statements().read_run).await?;
                Ok::<_, RunStoreError>((row, record))
            };
            let found: Vec<_> = stream::iter(listed).map(read).buffered(CHUNK).try_collect().await?;
            for (row, record) in found {
                let Some(record) = record else {
                    self.pass_over(owner, &row).await?;
                    continue;
                };
                if rows.len() == size || bytes > MAX_PART {
                    let next = rows.last().map(|row| row.id.to_string()).unwrap_or_default();
                    return Ok(Page { rows, next });
                }
                bytes += record.input.len() + record.output.len();
                rows.push(record);
            }
            after = Some(last);
        }
    }

    /// Removes a row of this region that has led nowhere for a day: what it was written for will not come any more. A
    /// run of another may only not have come here, and whoever erases finds it by its row.
    async fn pass_over(&self, owner: &str, row: &Listed) -> Answer<()> {
        if row.region == self.region() && row.run.made_ms().saturating_add(DAY_MS) < self.now_ms() {
            self.unlist_for(owner, row.run).await?;
        }
        Ok(())
    }

    /// How many rows the list of all runs has: those of all regions, as far as they have come here.
    pub(super) async fn count_all(&self) -> Answer<u64> {
        let (session, statements) = (self.session(), self.statements());
        let mut runs = 0;
        for (number, _) in self.periods(ALL).await? {
            let counted = session.one::<(i64,)>(&statements.count_listed, (ALL, number)).await?;
            runs += counted.map_or(0, |(counted,)| counted);
        }
        Ok(super::unsigned(runs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_listed_by_day_among_all_and_by_month_for_its_user() {
        let day = |days: u64| RunId::new(days * DAY_MS);
        assert_eq!((period(ALL, day(59)), period(ALL, day(60))), (59, 60));
        assert_eq!((period("ann", day(59)), period("ann", day(60))), (1, 2));
        assert_eq!(period("ann", RunId(Uuid::nil())), 0);
    }
}
