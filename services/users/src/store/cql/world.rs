//! What regions agree on: whose a name is, where users are at home, and who serves whom. Without jurisdictions it lies
//! among the tables of users. With them it is all that a region holds of users of another jurisdiction, in a keyspace
//! of its own that is copied everywhere: ids, times and regions, and names as nobody reads them without a key.

use std::sync::Arc;

use echotune_kit::{
    cql::{CqlError, CqlSession, Decide, Read, Scope, Seen, Write},
    keys::NamesKey,
};
use echotune_model::{Jurisdictions, TokenId, UserId, UserName};

use super::{
    CqlUserStore,
    schema::{ALL, RESIDENTS, WORLD},
};
use crate::store::Answer;

/// Where what is of users may be kept.
#[derive(Debug, Clone)]
pub struct Residency {
    /// The keyspace of what all agree on.
    pub common: String,
    /// All regions there are.
    pub regions: Vec<String>,
    /// The jurisdictions of them.
    pub jurisdictions: Jurisdictions,
    /// The key by which names are told.
    pub key: NamesKey,
}

/// Text of a statement on what regions agree on: among the tables of users, or in the common keyspace for `{}`.
fn text(common: Option<&str>, [together, apart]: [&str; 2]) -> String {
    common.map_or_else(|| together.to_owned(), |common| apart.replace("{}", common))
}

macro_rules! agreed {
    ($of:ident: reads { $($read:ident: $query:expr;)* } writes { $($write:ident: $change:expr;)* }
     looks { $($look:ident: $seen:expr;)* } decides { $($decide:ident: $condition:expr;)* }) => {
        pub(super) struct $of {
            $(pub(super) $read: Read,)*
            $(pub(super) $write: Write,)*
            $(pub(super) $look: Read,)*
            $(pub(super) $decide: Decide,)*
        }

        impl $of {
            /// Text among the tables of users and in the common keyspace, by statement.
            #[cfg(test)]
            pub(super) const TEXTS: &[[&str; 2]] = &[$($query,)* $($change,)* $($seen,)* $($condition,)*];

            async fn prepare(session: &CqlSession, common: Option<&str>) -> Result<Self, CqlError> {
                let everywhere = Scope::Everywhere;
                Ok(Self {
                    $($read: session.read(concat!("users: ", stringify!($read)), &text(common, $query)).await?,)*
                    $($write: session.write(concat!("users: ", stringify!($write)), &text(common, $change)).await?,)*
                    $($look: session.look(concat!("users: ", stringify!($look)), &text(common, $seen), everywhere).await?,)*
                    $($decide: session.conditional(concat!("users: ", stringify!($decide)), &text(common, $condition), everywhere).await?,)*
                })
            }
        }
    };
}

agreed! {
    Agreed:
    reads {
        name: ["SELECT user_id, created, name FROM users_names WHERE folded = ?",
               "SELECT user_id, created, region FROM {}.world_names WHERE who = ?"];
        home: ["SELECT region FROM users_homes WHERE user_id = ?", "SELECT region FROM {}.world_homes WHERE user_id = ?"];
    }
    writes {}
    looks {
        name_now: ["SELECT user_id, created, name, asked FROM users_names WHERE folded = ?",
                   "SELECT user_id, created, region, asked FROM {}.world_names WHERE who = ?"];
        home_now: ["SELECT region FROM users_homes WHERE user_id = ?",
                   "SELECT region FROM {}.world_homes WHERE user_id = ?"];
        regions_now: ["SELECT region, served_by, epoch, since_ms FROM users_regions WHERE part = ?",
                      "SELECT region, served_by, epoch, since_ms FROM {}.world_regions WHERE part = ?"];
    }
    decides {
        take_name: ["INSERT INTO users_names (folded, user_id, created, name, asked) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
                    "INSERT INTO {}.world_names (who, user_id, created, region, asked) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS"];
        free_name: ["DELETE FROM users_names WHERE folded = ? IF user_id = ?",
                    "DELETE FROM {}.world_names WHERE who = ? IF user_id = ?"];
        take_home: ["INSERT INTO users_homes (user_id, region) VALUES (?, ?) IF NOT EXISTS",
                    "INSERT INTO {}.world_homes (user_id, region) VALUES (?, ?) IF NOT EXISTS"];
        change_home: ["UPDATE users_homes SET region = ? WHERE user_id = ? IF region = ?",
                      "UPDATE {}.world_homes SET region = ? WHERE user_id = ? IF region = ?"];
        free_home: ["DELETE FROM users_homes WHERE user_id = ? IF EXISTS",
                    "DELETE FROM {}.world_homes WHERE user_id = ? IF EXISTS"];
        serve_first: ["INSERT INTO users_regions (part, region, served_by, epoch, since_ms) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
                      "INSERT INTO {}.world_regions (part, region, served_by, epoch, since_ms) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS"];
        serve_next: ["UPDATE users_regions SET served_by = ?, epoch = ?, since_ms = ? WHERE part = ? AND region = ? IF epoch = ?",
                     "UPDATE {}.world_regions SET served_by = ?, epoch = ?, since_ms = ? WHERE part = ? AND region = ? IF epoch = ?"];
    }
}

// Only where there are jurisdictions: among the tables of users this follows from the others.
agreed! {
    Parted:
    reads {
        gone: ["", "SELECT user_id FROM {}.world_erased WHERE user_id = ?"];
        token_region: ["", "SELECT region FROM {}.world_tokens WHERE token_id = ?"];
        parts: ["", "SELECT region, jurisdiction, names FROM {}.world_parts WHERE part = ?"];
    }
    writes {
        put_gone: ["", "INSERT INTO {}.world_erased (user_id) VALUES (?)"];
        put_token_region: ["", "INSERT INTO {}.world_tokens (token_id, region) VALUES (?, ?)"];
        drop_token_region: ["", "DELETE FROM {}.world_tokens WHERE token_id = ?"];
    }
    looks {
        parts_now: ["", "SELECT region, jurisdiction, names FROM {}.world_parts WHERE part = ?"];
    }
    decides {
        put_part: ["", "INSERT INTO {}.world_parts (part, region, jurisdiction, names) VALUES (?, ?, ?, ?) IF NOT EXISTS"];
    }
}

/// A region, its jurisdiction, and what tells the key of names.
type Part = (String, String, Vec<u8>);

/// What is agreed on, as this process reaches it.
pub(super) struct World {
    pub(super) agreed: Agreed,
    jurisdictions: Jurisdictions,
    pub(super) apart: Option<Apart>,
}

/// What there is besides where there are jurisdictions.
pub(super) struct Apart {
    pub(super) residency: Residency,
    pub(super) statements: Parted,
}

impl World {
    /// The statements, once what is recorded of the jurisdictions is what this process was told.
    pub(super) async fn prepare(session: &CqlSession, residency: Option<&Residency>) -> Answer<Arc<Self>> {
        let agreed = Agreed::prepare(session, residency.map(|of| of.common.as_str())).await?;
        let apart = match residency {
            None => None,
            Some(of) => {
                let statements = Parted::prepare(session, Some(&of.common)).await?;
                let parts: Vec<Part> = session.rows(&statements.parts, (ALL,), usize::MAX).await?;
                of.agrees(&parts)?;
                Some(Apart { residency: of.clone(), statements })
            }
        };
        let jurisdictions = residency.map(|of| of.jurisdictions.clone()).unwrap_or_default();
        Ok(Arc::new(Self { agreed, jurisdictions, apart }))
    }

    /// What a name is found by.
    pub(super) fn key_of(&self, name: &UserName) -> String {
        match &self.apart {
            None => name.folded(),
            Some(Apart { residency, .. }) => hex(&residency.key.mac("name", name.folded().as_bytes())),
        }
    }

    /// What stands with a name: itself, or the region of the account.
    pub(super) fn value_of<'n>(&self, name: &'n UserName, region: &'n str) -> &'n str {
        if self.apart.is_some() { region } else { name.as_str() }
    }

    /// What tells the same call from another. The digest of a call holds what was asked, which is a name.
    pub(super) fn asked(&self, seed: Vec<u8>) -> Vec<u8> {
        match &self.apart {
            Some(Apart { residency, .. }) if !seed.is_empty() => residency.key.mac("asked", &seed).to_vec(),
            _ => seed,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Residency {
    /// What regions have the same of who have the same key, and tells nothing of it.
    fn check(&self) -> Vec<u8> {
        self.key.mac("the key of names", &[]).to_vec()
    }

    /// Whether jurisdictions and key are those that are recorded.
    fn agrees(&self, recorded: &[Part]) -> Result<(), CqlError> {
        let wrong = |cause: String| Err(CqlError::Schema { owner: WORLD.owner, cause });
        for region in &self.regions {
            let of = self.jurisdictions.of(region);
            match recorded.iter().find(|(name, ..)| name == region) {
                None => {
                    return wrong(format!(
                        "region '{region}' is not recorded; run `echotune schema` with this configuration"
                    ));
                }
                Some((_, before, _)) if before != of => {
                    let way = "a region does not change its jurisdiction; correct region.jurisdictions";
                    return wrong(format!("region '{region}' is recorded as of '{before}', and not of '{of}': {way}"));
                }
                Some((.., names)) if *names != self.check() => {
                    let way = "give this program the file that the other regions have";
                    return wrong(format!(
                        "secrets.names_key_file holds another key than the one that is recorded: {way}"
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Records what is not recorded yet.
    async fn record(&self, session: &CqlSession) -> Result<(), CqlError> {
        let statements = Parted::prepare(session, Some(&self.common)).await?;
        for region in &self.regions {
            let part: Part = (region.clone(), self.jurisdictions.of(region).to_owned(), self.check());
            let look = || async {
                let parts: Vec<Part> = session.rows(&statements.parts_now, (ALL,), usize::MAX).await?;
                Ok(match parts.into_iter().find(|(name, ..)| name == region) {
                    Some(found) if found == part => Seen::Applied,
                    Some(_) => Seen::Refused,
                    None => Seen::Open,
                })
            };
            session.settle(&statements.put_part, (ALL, &part.0, &part.1, &part.2), look).await?;
        }
        self.agrees(&session.rows(&statements.parts_now, (ALL,), usize::MAX).await?)
    }
}

/// Refuses a keyspace that has tables of the other kind.
pub(super) async fn refuse(session: &CqlSession, table: &str, why: &str) -> Result<(), CqlError> {
    let read = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
    let read = session.read("which tables there are", read).await?;
    let keyspace = &session.config().keyspace;
    let found: Option<(String,)> = session.one(&read, (keyspace, table)).await?;
    let cause = format!("keyspace {keyspace} {why}");
    found.map_or(Ok(()), |_| Err(CqlError::Schema { owner: "users", cause }))
}

impl CqlUserStore {
    /// Makes or renews the tables where there are jurisdictions: those that all agree on, by a session with the common
    /// keyspace, and those of the own one; and records the jurisdictions. The versions that were applied of both. For
    /// one process at a time, and in each jurisdiction.
    ///
    /// # Errors
    /// The servers refuse, the tables are of a newer or changed EchoTune or from before there were jurisdictions, the
    /// keyspace of the own jurisdiction has copies elsewhere, or others were recorded.
    pub async fn migrate_apart(
        common: &CqlSession,
        own: &CqlSession,
        residency: &Residency,
    ) -> Answer<(Vec<i32>, Vec<i32>)> {
        let why = "has tables of users from before there were jurisdictions; name another in cql.keyspace";
        refuse(common, "users_names", why).await?;
        own.check_copies().await?;
        let world = common.migrate(&WORLD).await?;
        residency.record(common).await?;
        Ok((world, own.migrate(&RESIDENTS).await?))
    }

    /// The jurisdictions of regions.
    pub(crate) fn jurisdictions(&self) -> &Jurisdictions {
        &self.inner.world.jurisdictions
    }

    /// Whether what is of users of a region may be kept here.
    pub(crate) fn is_ours(&self, region: &str) -> bool {
        self.jurisdictions().same(region, &self.inner.region)
    }

    /// Whether a user was erased, in whatever jurisdiction.
    pub(super) async fn was_erased(&self, user: UserId) -> Answer<bool> {
        if self.is_erased(user).await? {
            return Ok(true);
        }
        let Some(Apart { statements, .. }) = &self.inner.world.apart else { return Ok(false) };
        Ok(self.one::<(uuid::Uuid,)>(&statements.gone, (user.0,)).await?.is_some())
    }

    /// Tells all jurisdictions that an id is never used again.
    pub(super) async fn tell_erased(&self, user: UserId) -> Answer<()> {
        match &self.inner.world.apart {
            Some(Apart { statements, .. }) => self.put(&statements.put_gone, (user.0,)).await,
            None => Ok(()),
        }
    }

    /// In which region a token was made that is none of this jurisdiction; nothing when nobody knows it.
    pub(crate) async fn token_elsewhere(&self, id: TokenId) -> Answer<Option<String>> {
        let Some(Apart { statements, .. }) = &self.inner.world.apart else { return Ok(None) };
        let row: Option<(String,)> = self.one(&statements.token_region, (id.0,)).await?;
        Ok(row.map(|(region,)| region).filter(|region| !self.is_ours(region)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::cql::{
        schema::{MIGRATIONS, RESIDENTS, WORLD},
        statements::Statements,
    };

    /// Names of tables in a statement, with the keyspace when there is one.
    fn tables(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_alphanumeric() || "_.{}".contains(c)));
        words.filter(|word| word.contains("users_") || word.contains("world_")).collect()
    }

    fn made(migrations: &echotune_kit::cql::Migrations) -> BTreeSet<&'static str> {
        migrations.steps.iter().flat_map(|step| step.statements).flat_map(|text| tables(text)).collect()
    }

    #[test]
    fn no_statement_on_what_is_of_users_leaves_the_keyspace_of_the_jurisdiction_and_no_other_enters_it() {
        let residents = made(&RESIDENTS);
        for text in Statements::TEXTS {
            let tables = tables(text);
            assert_eq!(tables.len(), 1, "{text}");
            assert!(tables.is_subset(&residents), "{text} is on a table that no jurisdiction has");
        }
        let world: BTreeSet<_> = made(&WORLD).into_iter().map(|table| format!("{{}}.{table}")).collect();
        for [_, apart] in Agreed::TEXTS.iter().chain(Parted::TEXTS) {
            let tables: BTreeSet<_> = tables(apart).into_iter().map(str::to_owned).collect();
            assert_eq!(tables.len(), 1, "{apart}");
            assert!(tables.is_subset(&world), "{apart} is not on a table of the common keyspace");
            assert!(text(Some("common"), ["", apart]).contains(" common.world_"), "{apart}");
        }
        assert!(made(&WORLD).is_disjoint(&residents));
    }

    #[test]
    fn what_is_agreed_on_is_in_one_place_only() {
        let (together, residents) = (made(&MIGRATIONS), made(&RESIDENTS));
        let agreed: BTreeSet<_> = Agreed::TEXTS.iter().flat_map(|[together, _]| tables(together)).collect();
        assert_eq!(agreed, BTreeSet::from(["users_homes", "users_names", "users_regions"]));
        assert!(agreed.is_disjoint(&residents) && agreed.is_subset(&together));
        assert_eq!(together.difference(&agreed).copied().collect::<BTreeSet<_>>(), residents);
    }

    fn residency(told: &[&str], key: u8) -> Residency {
        let regions = ["us", "eu"].map(str::to_owned).to_vec();
        let told: Vec<_> = told.iter().map(|one| (*one).to_owned()).collect();
        let jurisdictions = Jurisdictions::parse(&told, &regions).expect("well");
        Residency { common: "common".into(), regions, jurisdictions, key: NamesKey::new([key; 32]) }
    }

    #[test]
    fn a_region_that_was_told_something_else_is_found_out() {
        let own = residency(&["eea=eu"], 7);
        let part =
            |of: &Residency, region: &str| (region.to_owned(), of.jurisdictions.of(region).to_owned(), of.check());
        let recorded = |of: &Residency| ["us", "eu"].map(|region| part(of, region)).to_vec();
        assert!(own.agrees(&recorded(&own)).is_ok());
        for (others, word) in [
            (recorded(&residency(&["eea=us,eu"], 7)), "'us' is recorded as of 'eea'"),
            (recorded(&residency(&["eea=eu"], 8)), "another key"),
            (vec![part(&own, "us")], "'eu' is not recorded"),
        ] {
            let refused = own.agrees(&others).expect_err("told something else").to_string();
            assert!(refused.contains(word), "{word} is not in {refused}");
        }
        let more = [recorded(&own), vec![("ap".into(), "open".into(), own.check())]].concat();
        assert!(own.agrees(&more).is_ok(), "a region that was given up stays recorded");
    }
}
