//! Authentication: one generated token in a file that only its owner can read, and a port for whatever
//! else can tell who presents a secret.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use echotune_model::{ErrorKind, Fault, ForwardedBy, Principal, User, UserName};
use http::{HeaderMap, header::AUTHORIZATION};

/// Header that names the principal on whose behalf a part of the platform passes a request on, as
/// [`Principal::encode`] writes it.
pub const ON_BEHALF_OF: &str = "echotune-on-behalf-of";
/// Header that names the region that passes a request on; it comes with [`ON_BEHALF_OF`] and never alone.
pub const FORWARDED_BY: &str = "echotune-forwarded-by";
/// File name of the token in a data folder.
pub const TOKEN_FILE: &str = "token";
/// Longest secret that is looked at, in bytes.
const MAX_SECRET_BYTES: usize = 256;
/// Longest JWT that is looked at, in bytes: half of what the headers of a request may have.
pub const MAX_JWT_BYTES: usize = 8 << 10;
/// Under which name a token is written before it is whole.
const DRAFT_FILE: &str = "token.new";
/// Characters of the token at the least: 192 bits in the alphabet of the generated ones.
const MIN_CHARS: usize = 32;

/// Tells who presents a secret.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Whose secret this is. `Unauthenticated` when nobody's, or no longer.
    async fn principal(&self, secret: &str) -> Result<Principal, Fault>;

    /// The same, with what the secret was issued for, where it says so.
    async fn presented(&self, secret: &str) -> Result<Presented, Fault> {
        Ok(Presented { principal: self.principal(secret).await?, grant: None })
    }
}

/// Who presents a secret, and what that was issued for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Who.
    pub principal: Principal,
    /// What a JWT was issued for. Nothing for secrets of this platform, which open all of it.
    pub grant: Option<Grant>,
}

/// What an issuer says that a JWT is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// What its bearer may do (`scope`, RFC 8693 section 4.2, or `scp`), in the order in which it says so.
    pub scopes: Vec<String>,
    /// Where (`aud`, RFC 7519 section 4.1.3).
    pub audiences: Vec<String>,
}

/// Finds accounts by their names, for those who are known by something else than a secret of their account.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// The account of this name. `NotFound` when there is none.
    async fn account(&self, name: &UserName) -> Result<User, Fault>;
}

/// A bearer token. Its text is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

impl From<String> for Token {
    /// A secret that was given out elsewhere, such as that of an API token.
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl Token {
    /// The value of an `authorization` header.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether a presented `authorization` header carries this token, in constant time.
    pub fn accepts(&self, header: &[u8]) -> bool {
        let expected = self.header();
        header.len() == expected.len()
            && header.iter().zip(expected.as_bytes()).fold(0_u8, |differ, (a, b)| differ | (a ^ b)) == 0
    }

    /// Reads the token of a data folder.
    ///
    /// # Errors
    /// The file is absent or unreadable, or holds less than a token; the text says what to do.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let path = folder.join(TOKEN_FILE);
        let token = fs::read_to_string(&path)?;
        Self::checked(&token, &path, "delete the file, and the next start of the platform makes a new token")
    }

    /// Reads a token from a file that somebody else made.
    ///
    /// # Errors
    /// The file is absent or unreadable, or holds less than a token; the text names it.
    pub fn read_file(path: &Path) -> io::Result<Self> {
        let unreadable = |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", path.display()));
        let token = fs::read_to_string(path).map_err(unreadable)?;
        Self::checked(&token, path, "write a longer one, such as `openssl rand -base64 32` makes")
    }

    fn checked(text: &str, path: &Path, way_out: &str) -> io::Result<Self> {
        let token = text.trim();
        let (chars, path) = (token.chars().count(), path.display());
        if chars >= MIN_CHARS {
            return Ok(Self(token.to_owned()));
        }
        let why = format!("{path} holds {chars} characters where a token has at least {MIN_CHARS}; {way_out}");
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Reads the token of a data folder, generating it (256 bits, mode 0600) the first time. The file
    /// is there as a whole or not at all, also when the process dies. For the one process that has the
    /// folder open.
    ///
    /// # Errors
    /// As [`Token::read`], or the file cannot be written.
    pub fn read_or_create(folder: &Path) -> io::Result<Self> {
        match Self::read(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let token = Self(URL_SAFE_NO_PAD.encode(bytes));
        token.write(folder)?;
        Ok(token)
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        let draft = folder.join(DRAFT_FILE);
        // What a process that died here has left is no token, and may be another's to read.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft)?;
        file.write_all(self.0.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, folder.join(TOKEN_FILE))?;
        // The name is durable when the folder is; only Unix opens folders.
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

/// Knows callers by the bearer token of their requests, at every edge alike.
#[derive(Clone)]
pub struct Callers {
    token: Token,
    others: Option<Arc<dyn Authenticator>>,
    issued: Option<Arc<dyn Authenticator>>,
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (others, issued) = (self.others.is_some(), self.issued.is_some());
        f.debug_struct("Callers").field("others", &others).field("issued", &issued).finish_non_exhaustive()
    }
}

impl Callers {
    /// Knows the operator by `token`, and others by what `others` says of their secret.
    pub fn new(token: Token, others: Option<Arc<dyn Authenticator>>) -> Self {
        Self { token, others, issued: None }
    }

    /// Knows those as well who present a JWT, by what `issued` says of it.
    #[must_use]
    pub fn with_issuer(self, issued: Arc<dyn Authenticator>) -> Self {
        Self { issued: Some(issued), ..self }
    }

    /// For whom these headers ask: whoever presents them, or the principal on whose behalf a part of the platform
    /// passes a request on ([`ON_BEHALF_OF`]). Only the operator's token may name another, which can only narrow.
    ///
    /// # Errors
    /// `Unauthenticated` when nobody that is known; `PermissionDenied` when a user or a JWT names another, and
    /// `InvalidArgument` when the name is malformed; otherwise what kept the port from telling.
    pub async fn principal(&self, headers: &HeaderMap) -> Result<Principal, Fault> {
        Ok(self.presented(headers).await?.principal)
    }

    /// The same, with what the token was issued for that they carry. Who asks on behalf of another is bound to nothing.
    ///
    /// # Errors
    /// As [`Callers::principal`].
    pub async fn presented(&self, headers: &HeaderMap) -> Result<Presented, Fault> {
        let presents = self.presents(headers).await?;
        let (other, region) = match (headers.get(ON_BEHALF_OF), headers.get(FORWARDED_BY)) {
            (None, None) => return Ok(presents),
            (None, Some(_)) => return Err(Fault::invalid(format!("'{FORWARDED_BY}' comes without '{ON_BEHALF_OF}'"))),
            (Some(other), region) => (other, region),
        };
        // A JWT is bound to what it was issued for, which would be lost with the name of another.
        if presents.principal != Principal::Operator || presents.grant.is_some() {
            return Err(Fault::new(
                ErrorKind::PermissionDenied,
                format!("'{ON_BEHALF_OF}' is for parts of the platform, which have the operator's token; leave it out"),
            ));
        }
        if !region.is_some_and(|region| region.to_str().is_ok_and(|region| !region.is_empty())) {
            return Err(Fault::invalid(format!("'{ON_BEHALF_OF}' comes without '{FORWARDED_BY}: REGION'")));
        }
        let other = other.to_str().map_err(|_| Fault::invalid(format!("'{ON_BEHALF_OF}' is not ASCII")))?;
        Ok(Presented { principal: Principal::decode(other)?, grant: None })
    }

    async fn presents(&self, headers: &HeaderMap) -> Result<Presented, Fault> {
        let presented = headers.get(AUTHORIZATION).ok_or_else(|| self.refusal(""))?.as_bytes();
        if self.token.accepts(presented) {
            return Ok(Presented { principal: Principal::Operator, grant: None });
        }
        let secret = presented.strip_prefix(b"Bearer ").and_then(|secret| std::str::from_utf8(secret).ok());
        let secret = secret.ok_or_else(|| self.refusal(""))?;
        // Neither tokens of data folders nor API tokens have a dot, and every JWT has (RFC 7515 section 3.1).
        match (&self.issued, &self.others) {
            (Some(issued), _) if secret.contains('.') => {
                if secret.len() > MAX_JWT_BYTES {
                    let why = format!("the JWT has {} bytes, and {MAX_JWT_BYTES} are looked at", secret.len());
                    return Err(Fault::new(ErrorKind::Unauthenticated, why));
                }
                issued.presented(secret).await
            }
            (None, _) if secret.starts_with("eyJ") && secret.contains('.') => {
                Err(self.refusal("; a JWT was sent, and no issuer of such is known here (identity.issuer)"))
            }
            (_, Some(others)) if secret.len() <= MAX_SECRET_BYTES => others.presented(secret).await,
            _ => Err(self.refusal("")),
        }
    }

    fn refusal(&self, more: &str) -> Fault {
        let jwt = if self.issued.is_some() { ", an API token or a JWT of the issuer" } else { " or an API token" };
        let why = format!(
            "no valid token: send 'authorization: Bearer TOKEN' with the token of the data folder's file 'token'{jwt}{more}"
        );
        Fault::new(ErrorKind::Unauthenticated, why)
    }
}

/// The region that passed a request on whose headers [`Callers::principal`] has accepted.
pub(crate) fn forwarded_by(headers: &HeaderMap) -> Option<ForwardedBy> {
    let region = headers.get(FORWARDED_BY)?.to_str().ok()?;
    Some(ForwardedBy(region.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_accepts_itself_only_and_is_never_shown() {
        let folder = tempfile::tempdir().expect("folder");
        let token = Token::read_or_create(folder.path()).expect("created");
        let again = Token::read_or_create(folder.path()).expect("read");
        assert!(again.accepts(token.header().as_bytes()));
        assert!(!again.accepts(b"Bearer "));
        assert!(!again.accepts(token.header().to_lowercase().as_bytes()));
        assert!(!format!("{token:?}").contains(&token.0));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_a_token_also_after_a_start_that_died() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("folder");
        let draft = folder.path().join(DRAFT_FILE);
        fs::write(&draft, "half").expect("written");
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o666)).expect("opened to all");
        let token = Token::read_or_create(folder.path()).expect("created");
        let metadata = fs::metadata(folder.path().join(TOKEN_FILE)).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(Token::read(folder.path()).expect("read"), token);
        assert!(!draft.exists());
    }

    #[test]
    fn a_file_that_holds_less_than_a_token_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().expect("folder");
        for held in ["", "\n", "x", &"x".repeat(31)] {
            fs::write(folder.path().join(TOKEN_FILE), held).expect("written");
            for refused in [Token::read(folder.path()), Token::read_or_create(folder.path())] {
                let error = refused.expect_err("no token").to_string();
                assert!(error.contains("at least 32") && error.contains("delete the file"), "{error}");
            }
        }
        fs::write(folder.path().join(TOKEN_FILE), "x".repeat(32)).expect("written");
        assert!(Token::read(folder.path()).expect("a token").accepts(format!("Bearer {}", "x".repeat(32)).as_bytes()));
    }

    struct Issuer;

    #[async_trait]
    impl Authenticator for Issuer {
        async fn principal(&self, _: &str) -> Result<Principal, Fault> {
            Ok(Principal::Operator)
        }

        async fn presented(&self, secret: &str) -> Result<Presented, Fault> {
            Ok(Presented { principal: self.principal(secret).await?, grant: Some(Grant::default()) })
        }
    }

    #[tokio::test]
    async fn a_jwt_of_the_operator_does_not_shed_what_it_was_issued_for_by_naming_another() {
        let callers = Callers::new(Token::from("x".repeat(32)), None).with_issuer(Arc::new(Issuer));
        let headers = |secret: &str, other: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Bearer {secret}").parse().expect("a header"));
            if let Some(other) = other {
                headers.insert(ON_BEHALF_OF, other.parse().expect("a header"));
                headers.insert(FORWARDED_BY, "eu".parse().expect("a header"));
            }
            headers
        };
        let own = callers.presented(&headers("a.j.wt", None)).await.expect("known");
        assert_eq!((own.principal, own.grant), (Principal::Operator, Some(Grant::default())));
        let operator = Principal::Operator.encode();
        let refused = callers.presented(&headers("a.j.wt", Some(&operator))).await.expect_err("bound");
        assert_eq!(refused.kind, ErrorKind::PermissionDenied);
        let platform =
            callers.presented(&headers(&"x".repeat(32), Some(&operator))).await.expect("the platform's token");
        assert_eq!(platform.grant, None);
    }
}
