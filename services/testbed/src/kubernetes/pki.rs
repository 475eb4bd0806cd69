//! Certificates, keys and kubeconfigs of a cluster: made once, and kept as long as its folder.
//!
//! Keys are of EC P-256. Certificates end as late as they can, so that a machine whose clock is wrong still starts one.

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::{
    KubernetesPlan,
    folder::{Folder, write},
    node,
};
use crate::{TestbedError, template::render};

const KUBECONFIG: &str = include_str!("../../kubernetes/templates/kubeconfig.yaml");
/// Names of the API server within the cluster.
const NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// A caller of the API server, by the names that its certificate tells: file, user, group.
struct Caller(&'static str, &'static str, &'static str);

const CALLERS: [Caller; 8] = [
    Caller("admin", "admin", MASTERS),
    Caller("nobody", "nobody", ""),
    Caller("controller-manager", "system:kube-controller-manager", ""),
    Caller("scheduler", "system:kube-scheduler", ""),
    Caller("kwok", "kwok", MASTERS),
    Caller("apiserver-kubelet", "kube-apiserver-kubelet-client", MASTERS),
    Caller("kubelet", node::USER, "system:nodes"),
    Caller("kube-proxy", "system:kube-proxy", ""),
];

/// Makes all that is missing.
pub(crate) fn prepare(plan: &KubernetesPlan, folder: &Folder) -> Result<(), TestbedError> {
    authority(folder, "ca")?;
    authority(folder, "front-proxy-ca")?;
    let addresses = plan.addresses();
    let ips = ["127.0.0.1".to_owned(), addresses.api().to_string(), addresses.api_service().to_string()];
    let names: Vec<String> = NAMES.iter().map(ToString::to_string).chain(ips).collect();
    let server = CertificateParams::new(names).map_err(broken(&folder.pki("apiserver.crt")))?;
    issue(folder, "ca", "apiserver", leaf(server, "kube-apiserver", "", ExtendedKeyUsagePurpose::ServerAuth))?;
    issue(folder, "front-proxy-ca", "front-proxy-client", caller("front-proxy-client", ""))?;
    for Caller(file, user, group) in &CALLERS {
        issue(folder, "ca", file, caller(user, group))?;
    }
    service_accounts(folder)?;
    kubeconfig(plan, folder, "admin", &folder.kubeconfig())?;
    kubeconfig(plan, folder, "nobody", &folder.file("kubeconfig-nobody"))?;
    for name in ["controller-manager", "scheduler", "kwok", "kubelet", "kube-proxy"] {
        kubeconfig(plan, folder, name, &folder.config(name))?;
    }
    Ok(())
}

/// An authority's certificate: the same for the same name, so that it need not be read again to issue by it.
fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("echotune-testbed-{name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn authority(folder: &Folder, name: &str) -> Result<(), TestbedError> {
    pair(folder, [name, "crt"], |key| authority_params(name).self_signed(key).map(|made| made.pem()))
}

fn issue(folder: &Folder, by: &str, name: &str, params: CertificateParams) -> Result<(), TestbedError> {
    let path = folder.pki(&format!("{by}.key"));
    let text = fs::read_to_string(&path).map_err(TestbedError::file(&path))?;
    let issuer = Issuer::new(authority_params(by), KeyPair::from_pem(&text).map_err(broken(&path))?);
    pair(folder, [name, "crt"], |key| params.signed_by(key, &issuer).map(|made| made.pem()))
}

/// A key and what certifies it, unless both are there.
fn pair(
    folder: &Folder,
    [name, extension]: [&str; 2],
    certify: impl FnOnce(&KeyPair) -> Result<String, rcgen::Error>,
) -> Result<(), TestbedError> {
    let (certificate, key) = (folder.pki(&format!("{name}.{extension}")), folder.pki(&format!("{name}.key")));
    if certificate.exists() && key.exists() {
        return Ok(());
    }
    let pair = KeyPair::generate().map_err(broken(&key))?;
    write(&key, &pair.serialize_pem())?;
    write(&certificate, &certify(&pair).map_err(broken(&certificate))?)
}

/// The key that tokens of service accounts are signed by. Kubernetes takes PKCS #8 and SubjectPublicKeyInfo.
fn service_accounts(folder: &Folder) -> Result<(), TestbedError> {
    pair(folder, ["service-accounts", "pub"], |key| Ok(key.public_key_pem()))
}

fn caller(user: &str, group: &str) -> CertificateParams {
    leaf(CertificateParams::default(), user, group, ExtendedKeyUsagePurpose::ClientAuth)
}

fn leaf(mut params: CertificateParams, user: &str, group: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A kubeconfig that holds all it needs, so that it can be carried elsewhere.
fn kubeconfig(plan: &KubernetesPlan, folder: &Folder, name: &str, path: &Path) -> Result<(), TestbedError> {
    let encoded = |file: &str| {
        let path = folder.pki(file);
        fs::read(&path).map(|bytes| BASE64_STANDARD.encode(bytes)).map_err(TestbedError::file(&path))
    };
    let values = [
        ("PORT", plan.port.to_string()),
        ("AUTHORITY", encoded("ca.crt")?),
        ("CERTIFICATE", encoded(&format!("{name}.crt"))?),
        ("KEY", encoded(&format!("{name}.key"))?),
    ];
    write(path, &render(KUBECONFIG, &values.each_ref().map(|(name, value)| (*name, value.as_str()))))
}

fn broken(path: &Path) -> impl FnOnce(rcgen::Error) -> TestbedError {
    move |error| TestbedError::file(path)(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_for_the_owner_alone() {
        let run = tempfile::tempdir().unwrap();
        let plan = KubernetesPlan::new(run.path());
        let folder = Folder::of(&plan);
        folder.make().unwrap();
        prepare(&plan, &folder).unwrap();
        let all = || {
            let mut files: Vec<_> = folder.file("pki").read_dir().unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            files.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
        };
        let made = all();
        assert_eq!(made.len(), 2 * (2 + 2 + CALLERS.len() + 1), "{made:?}");
        for (_, path) in &made {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
        prepare(&plan, &folder).unwrap();
        assert_eq!(all(), made);
        // One that is lost comes again, by the same authority.
        fs::remove_file(folder.pki("kubelet.crt")).unwrap();
        prepare(&plan, &folder).unwrap();
        let changed = all().iter().zip(&made).filter(|(now, then)| now != then).count();
        assert_eq!(changed, 2);
    }

    #[test]
    fn a_kubeconfig_holds_all_it_needs() {
        let run = tempfile::tempdir().unwrap();
        let plan = KubernetesPlan { port: 17_003, ..KubernetesPlan::new(run.path()) };
        let folder = Folder::of(&plan);
        prepare(&plan, &folder).unwrap();
        let text = fs::read_to_string(folder.kubeconfig()).unwrap();
        assert!(text.contains("server: https://127.0.0.1:17003\n") && !text.contains('@'), "{text}");
        let key = text.lines().find_map(|line| line.trim().strip_prefix("client-key-data: ")).unwrap();
        assert_eq!(BASE64_STANDARD.decode(key).unwrap(), fs::read(folder.pki("admin.key")).unwrap());
    }
}
