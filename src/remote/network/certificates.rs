//! The certificates trusted for https: of the user's own file, of the system, or Mozilla's.
//!
//! Knows files, not connections.

use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use super::super::error::RemoteError;

/// The variables with a file of certificates, or a folder of such files: OpenSSL's, requests' and
/// curl's.
const VARIABLES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// The system's file: Debian and Ubuntu, Fedora and RHEL, openSUSE, Alpine and macOS.
const SYSTEM: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// The certificates of the first variable with a value, else the system's, else Mozilla's.
///
/// # Errors
/// The variable's file cannot be read, or has no certificate.
pub(super) fn roots(variable: &dyn Fn(&str) -> Option<String>) -> Result<RootCerts, RemoteError> {
    for name in VARIABLES {
        let Some(path) = variable(name).map(PathBuf::from) else { continue };
        let failed =
            |found: String| RemoteError::Environment { variable: name.to_string(), expected: "a file with certificates (PEM)", found };
        let found = read(&path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        if found.is_empty() {
            return Err(failed(format!("{} without any", path.display())));
        }
        return Ok(RootCerts::new_with_certs(&found));
    }
    let system = SYSTEM.iter().filter_map(|path| read(Path::new(path)).ok()).find(|found| !found.is_empty());
    Ok(system.map_or(RootCerts::WebPki, |found| RootCerts::new_with_certs(&found)))
}

/// The certificates of a file, or of all files of a folder. Other contents are passed over.
fn read(path: &Path) -> std::io::Result<Vec<Certificate<'static>>> {
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        files = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        files.retain(|file| file.is_file());
        files.sort();
    }
    let mut found = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file)?;
        found.extend(parse_pem(&bytes).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::roots;
    use ureq::tls::RootCerts;

    /// A certificate's frame; its contents are not looked at here.
    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn the_first_variable_with_a_value_decides() {
        let folder = tempfile::tempdir().unwrap();
        let two = folder.path().join("two.pem");
        std::fs::write(&two, format!("# ours\n{PEM}\n{PEM}")).unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "nothing\n").unwrap();
        let with = |pairs: Vec<(&'static str, String)>| {
            roots(&move |name: &str| pairs.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.clone()))
        };
        let path = |path: &std::path::Path| path.display().to_string();
        let Ok(RootCerts::Specific(found)) = with(vec![("REQUESTS_CA_BUNDLE", path(&two)), ("CURL_CA_BUNDLE", path(&empty))]) else {
            panic!("no certificates")
        };
        assert_eq!(found.len(), 2);
        let Ok(RootCerts::Specific(found)) = with(vec![("SSL_CERT_FILE", path(folder.path()))]) else { panic!("no certificates") };
        assert_eq!(found.len(), 2);
        let error = with(vec![("SSL_CERT_FILE", path(&empty))]).unwrap_err();
        assert!(
            error.is_input() && error.to_string().contains("SSL_CERT_FILE: expected a file with certificates (PEM), found "),
            "{error}"
        );
        let error = with(vec![("SSL_CERT_FILE", path(&folder.path().join("none.pem")))]).unwrap_err();
        assert!(error.to_string().contains("none.pem"), "{error}");
        assert!(with(Vec::new()).is_ok());
    }
}
