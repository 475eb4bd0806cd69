//! The table `[servers.oauth]`: how the gateway gets tokens for a server.

use std::{fs, path::PathBuf};

use echotune_kit::config::Secret;
use serde::Deserialize;

use crate::{OauthConfig, OauthGrant};

/// Longest file of a key, in bytes.
const KEY_BYTES: u64 = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OauthTable {
    #[serde(default)]
    grant: OauthGrant,
    issuer: Option<String>,
    client_id: Option<String>,
    #[serde(default)]
    client_secret: Secret,
    pub(super) private_key_file: Option<PathBuf>,
    client_metadata_url: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    redirect_url: Option<String>,
    #[serde(default)]
    follow_redirect: bool,
}

impl OauthTable {
    /// The configuration, with the key of its file.
    ///
    /// # Errors
    /// The file cannot be read; the text names it, and nothing of what is in it.
    pub(super) fn config(self) -> Result<OauthConfig, String> {
        let private_key = self.private_key_file.map(|path| {
            let told = |why: String| format!("oauth.private_key_file: {}: {why}", path.display());
            let bytes = fs::metadata(&path).map_err(|cause| told(cause.to_string()))?.len();
            if bytes > KEY_BYTES {
                return Err(told(format!("has {bytes} bytes, more than the {KEY_BYTES} that a key has")));
            }
            fs::read_to_string(&path).map(Secret::from).map_err(|cause| told(cause.to_string()))
        });
        Ok(OauthConfig {
            grant: self.grant,
            issuer: self.issuer,
            client_id: self.client_id,
            client_secret: Some(self.client_secret).filter(|secret| secret.reveal().is_some()),
            private_key: private_key.transpose()?,
            client_metadata_url: self.client_metadata_url,
            scopes: self.scopes,
            redirect_url: self.redirect_url,
            follow_redirect: self.follow_redirect,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OauthConfig, String> {
        toml::from_str::<OauthTable>(text).map_err(|cause| cause.to_string())?.config()
    }

    #[test]
    fn a_table_is_read_with_the_key_of_its_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("key.pem");
        fs::write(&path, "hidden").expect("written");
        let text = format!(
            "grant = \"client_credentials\"\nissuer = \"https://login.example.org\"\nclient_id = \"gateway\"\n\
             private_key_file = \"{}\"\nscopes = [\"a\"]\n",
            path.display()
        );
        let config = read(&text).expect("right");
        let mut expected = OauthConfig { grant: OauthGrant::ClientCredentials, ..OauthConfig::default() };
        expected.issuer = Some("https://login.example.org".to_owned());
        expected.client_id = Some("gateway".to_owned());
        expected.private_key = Some(Secret::from("hidden".to_owned()));
        expected.scopes = vec!["a".to_owned()];
        assert_eq!(config, expected);
        let code = read("redirect_url = \"https://mcp.example.org/oauth/callback\"\n").expect("right");
        assert_eq!((code.grant, code.follow_redirect), (OauthGrant::AuthorizationCode, false));
    }

    #[test]
    fn what_is_wrong_is_told_by_its_key() {
        for (text, why) in [
            ("private_key_file = \"/nowhere/key.pem\"\n", "oauth.private_key_file: /nowhere/key.pem"),
            ("grant = \"password\"\n", "password"),
            ("secret = 1\n", "secret"),
        ] {
            let told = read(text).expect_err("wrong");
            assert!(told.contains(why), "{why} is not in {told}");
        }
    }
}
