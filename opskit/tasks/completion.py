"""Completion of commands in a shell: the scripts, and what can stand in a place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from invoke.parser.context import ParserContext

from opskit.errors import UsageError
from opskit.tasks.call import general_flags

# Each asks the very program that stands on the line, however it is called: the shells
# find `./inv` and `/opt/opskit/inv` by their last part.
_SCRIPTS = {
    "bash": """\
_opskit_complete() {
    local IFS=$'\\n' words=("${COMP_WORDS[@]:0:COMP_CWORD+1}")
    local found=$("${words[0]}" --complete -- "${words[@]}" 2>/dev/null)
    COMPREPLY=($(compgen -W "$found" -- "${words[COMP_CWORD]}"))
}
complete -o default -F _opskit_complete inv opskit invoke
""",
    "zsh": """\
_opskit_complete() {
    local -a found
    found=(${(f)"$("${words[1]}" --complete -- "${(@)words[1,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -- $found; else _files; fi
}
autoload -Uz compinit && compinit
compdef _opskit_complete inv opskit invoke
""",
    "fish": """\
function __opskit_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] --complete -- $words 2>/dev/null
end
for name in inv opskit invoke
    complete --command $name --no-files --arguments '(__opskit_complete)'
end
""",
}


def script(shell: str) -> str:
    """Return what a shell must read to complete commands.

    Raises:
        UsageError: there is none for this shell.
    """
    if shell not in _SCRIPTS:
        raise UsageError(
            f"there is no completion for the shell {shell}",
            hint=f"Name one of: {', '.join(_SCRIPTS)}.",
        )
    return _SCRIPTS[shell]


def candidates(words: Sequence[str], tasks: Mapping[str, ParserContext]) -> list[str]:
    """Return what can stand in place of the last word; the first is the program.

    Nothing where a value stands: the shell then offers names of files.
    """
    *before, last = words[1:] or [""]
    task = next((tasks[word] for word in before if word in tasks), None)
    if last.startswith("-"):
        contexts = [general_flags(), *([task] if task else [])]
        flags = {flag for context in contexts for flag in context.flag_names()}
        return sorted(flag for flag in flags if flag.startswith("--"))
    return [] if task else sorted(tasks)
