//! The flaws of an object, field by field.

/// A field that could not be used. Its holder knows the object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct Flaw {
    /// The field, such as `spec.ports[0].port`.
    pub field: Box<str>,
    /// The cause and the remedy.
    pub message: Box<str>,
}

impl Flaw {
    /// Of this field.
    pub fn new(field: impl Into<Box<str>>, message: impl Into<Box<str>>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Collects the flaws of one object; the first few by name, the rest as a number, so that a slice with
/// thousands of bad endpoints stays readable and small.
#[derive(Default, Debug)]
pub struct Flaws {
    named: Vec<Flaw>,
    unnamed: usize,
}

impl Flaws {
    /// How many flaws of one object are named.
    pub const LIMIT: usize = 8;

    /// Notes a flaw. The arguments are written out only if it is named.
    pub fn add(&mut self, field: impl FnOnce() -> String, message: impl FnOnce() -> String) {
        if self.named.len() < Self::LIMIT {
            self.named.push(Flaw::new(field(), message()));
        } else {
            self.unnamed += 1;
        }
    }

    /// All of them; no allocation when there are none.
    pub fn finish(mut self) -> Box<[Flaw]> {
        if self.unnamed > 0
            && let Some(last) = self.named.last_mut()
        {
            let more = format!("{} (and {} more problems of this object)", last.message, self.unnamed);
            last.message = more.into();
        }
        self.named.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_full_of_flaws_names_the_first_few_and_counts_the_rest() {
        let mut flaws = Flaws::default();
        for i in 0..100 {
            flaws.add(|| format!("field[{i}]"), || "bad".into());
        }
        let flaws = flaws.finish();
        assert_eq!(flaws.len(), Flaws::LIMIT);
        assert!(flaws[7].message.contains("92 more"), "{flaws:?}");
    }
}
