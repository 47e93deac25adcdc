"""``edgeqwen chat``: a conversation in the terminal."""

from typing import Annotated

import typer

from edgeqwen.cli import options


def chat(
    model: options.ModelOrBuiltIn = None,
    max_tokens: options.MaxTokens = None,
    system: options.System = None,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Keep the conversation under a name, or in a file, and go on with it next time.",
        ),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Have a session of another model, or a damaged one, read again by this model.",
        ),
    ] = False,
    fork: Annotated[
        bool,
        typer.Option(
            "--fork", help="Go on with a copy of the session, which isn't kept, and may be in use."
        ),
    ] = False,
    stop: options.Stop = None,
    threads: options.Threads = None,
    context: options.Context = None,
    yarn: options.Yarn = None,
    context_shift: options.ContextShift = False,
    full_head: options.FullHead = False,
    kv: options.SessionCacheType = None,
    no_prefix_cache: options.NoPrefixCache = False,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    presence_penalty: options.PresencePenalty = None,
    frequency_penalty: options.FrequencyPenalty = None,
    seed: options.Seed = None,
) -> None:
    """Talk to a model. /help lists the commands inside; Ctrl-C stops an answer, Ctrl-D leaves.

    Without a terminal, every line of standard input is answered until it ends.
    """
    from edgeqwen.cli.context_memory import tell_of_context
    from edgeqwen.cli.conversation import Conversation
    from edgeqwen.cli.loading import load_model, named_or_built_in
    from edgeqwen.cli.session_names import session_file
    from edgeqwen.cli.terminal import clean_line
    from edgeqwen.session_files import cache_type

    if session is None and (rebuild or fork):
        raise typer.BadParameter("--rebuild and --fork are about a session: add --session NAME")
    if rebuild and fork:
        raise typer.BadParameter("--rebuild and --fork: a copy leaves the session as it is")
    file = None if session is None else session_file(session)
    path = named_or_built_in(model)
    with load_model(
        path,
        threads=threads,
        context=context,
        full_head=full_head,
        kv=kv or (None if file is None or rebuild else cache_type(file)) or "f16",
        yarn=yarn,
        prefix_cache=not no_prefix_cache,
    ) as loaded:
        tell_of_context(loaded, asked_for=(context or yarn) is not None, session=file)
        conversation = Conversation(
            loaded.chat(
                system,
                session=file,
                rebuild=rebuild,
                fork=fork,
                context_shift=context_shift,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                presence_penalty=presence_penalty,
                frequency_penalty=frequency_penalty,
                seed=seed,
            ),
            greedy=(loaded.sampling.temperature if temperature is None else temperature) == 0,
            max_tokens=max_tokens,
            stop=stop or (),
        )
        name = clean_line(loaded.config.name or path.name)
        print(f"{name}: {conversation.what_was_said()}/help lists the commands.", flush=True)
        conversation.run()
