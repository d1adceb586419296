//! The credentials for S3: from the environment, else from the user's AWS files.
//!
//! object_store reads the environment. It does not read `~/.aws/credentials` and `~/.aws/config`,
//! where `aws configure` writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

/// How credentials are given.
pub(super) const HINT: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket";

/// Settings of S3 without a bucket.
pub(super) struct Credentials {
    /// The settings.
    pub(super) builder: AmazonS3Builder,
    /// Whether there are credentials besides those that a machine of Amazon's gives to its
    /// programs.
    pub(super) are_known: bool,
}

impl Credentials {
    pub(super) fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut builder = AmazonS3Builder::from_env();
        let elsewhere = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SKIP_SIGNATURE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ];
        let mut are_known = elsewhere.iter().any(|name| variable(name).is_some());
        let profile = variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE")).unwrap_or_else(|| "default".to_string());
        let file = |name: &str, default: &str| {
            let path = variable(name).map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".aws").join(default)));
            path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
        };
        let config = file("AWS_CONFIG_FILE", "config");
        let name = if profile == "default" { profile.clone() } else { format!("profile {profile}") };
        let mut settings = section(&config, &name);
        settings.extend(section(&file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), &profile));
        if !are_known && let (Some(id), Some(secret)) = (settings.get("aws_access_key_id"), settings.get("aws_secret_access_key")) {
            are_known = true;
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
            if let Some(token) = settings.get("aws_session_token") {
                builder = builder.with_token(token);
            }
        }
        if variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).is_none()
            && let Some(region) = settings.get("region")
        {
            builder = builder.with_region(region);
        }
        let endpoints = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];
        if endpoints.iter().all(|name| variable(name).is_none())
            && let Some(endpoint) = settings.get("endpoint_url")
        {
            builder = builder.with_config(AmazonS3ConfigKey::Endpoint, endpoint);
        }
        Self { builder, are_known }
    }
}

/// The settings in one section of an AWS file: `[name]`, then lines `key = value`. Indented lines
/// belong to nested settings.
fn section(text: &str, name: &str) -> BTreeMap<String, String> {
    let mut is_inside = false;
    let mut settings = BTreeMap::new();
    for line in text.lines() {
        if let Some(header) = line.trim().strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_inside = header.split_whitespace().eq(name.split_whitespace());
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_inside && !line.starts_with([' ', '\t', '#', ';'])) {
            settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_string());
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::section;

    #[test]
    fn a_section_of_an_aws_file_has_its_own_settings() {
        let text = "[default]\nregion=eu-west-1\n[profile work]\n# a note = none\nregion = us-east-2\ns3 =\n  endpoint_url = x\n[other]\nregion=no\n";
        let settings = section(text, "profile work");
        assert_eq!(settings.get("region").map(String::as_str), Some("us-east-2"));
        assert!(!settings.contains_key("endpoint_url") && !settings.contains_key("# a note"));
        assert_eq!(section(text, "default").get("region").map(String::as_str), Some("eu-west-1"));
        assert!(section(text, "nobody").is_empty());
    }
}
