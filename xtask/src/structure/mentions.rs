//! Which paths an item names: those of types, expressions and patterns, and what looks like one in a macro call.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, ImplItemFn, Item, ItemMod, ItemUse, Macro, Path, Visibility,
    ext::IdentExt as _,
    visit::{self, Visit},
};

use super::module::{Module, Names};

/// Adds the paths of `item` to its module's; a `use` in a function's body counts for the module.
pub(super) fn collect(item: &Item, module: &mut Module) {
    Collector(module).visit_item(item);
}

/// Whether an item exists only in test builds.
pub(super) fn is_for_tests(item: &Item) -> bool {
    only_tests(attributes(item))
}

/// The names that an item defines in its module.
pub(super) fn defined(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(name.unraw().to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

struct Collector<'a>(&'a mut Module);

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_path(&mut self, path: &'ast Path) {
        self.0
            .mentions
            .insert(path.segments.iter().map(|segment| segment.ident.unraw().to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        in_tokens(call.tokens.clone(), &mut self.0.mentions);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.0.import(item);
    }

    /// `pub(super)` is not a use of a file.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    /// Ignores modules in bodies of functions.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !only_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }
}

/// Paths and single names anywhere in `tokens`.
fn in_tokens(tokens: TokenStream, mentions: &mut BTreeSet<Names>) {
    let mut path = Names::new();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                if colons != 2 {
                    mentions.insert(std::mem::take(&mut path));
                }
                path.push(name.unraw().to_string());
                colons = 0;
            }
            TokenTree::Punct(sign) if sign.as_char() == ':' && !path.is_empty() => colons += 1,
            other => {
                mentions.insert(std::mem::take(&mut path));
                colons = 0;
                if let TokenTree::Group(group) = other {
                    in_tokens(group.stream(), mentions);
                }
            }
        }
    }
    mentions.insert(path);
    mentions.remove(&Names::new());
}

/// Whether one of the attributes restricts an item to test builds.
fn only_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && matches!(&attribute.meta, syn::Meta::List(list) if {
                    let condition = list.tokens.to_string();
                    condition.contains("test") && !condition.contains("not")
                })
    })
}
