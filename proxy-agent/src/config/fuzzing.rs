//! What fuzzers throw at the configuration: the text of a file, without the file.

use super::{Error, Flags, Settings, decode, ignored::ignored};

/// What a file with this text comes to, without flags.
pub fn settings(text: &str) -> Result<Settings, Error> {
    let settings = Settings::new(None, decode(text)?, &Flags::default());
    ignored(&settings.effective).map_err(|error| Error::Text(error.to_string()))?;
    Ok(settings)
}
