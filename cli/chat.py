"""``edgeqwen chat``: a conversation in the terminal."""

from edgeqwen.cli import options


def chat(
    model: options.ModelOrBuiltIn = None,
    max_tokens: options.MaxTokens = None,
    system: options.System = None,
    stop: options.Stop = None,
    threads: options.Threads = None,
    context: options.Context = None,
    full_head: options.FullHead = False,
    kv: options.CacheType = "f16",
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
    from edgeqwen.cli.conversation import Conversation
    from edgeqwen.cli.loading import load_model, named_or_built_in
    from edgeqwen.cli.terminal import clean_line

    path = named_or_built_in(model)
    with load_model(path, threads=threads, context=context, full_head=full_head, kv=kv) as loaded:
        conversation = Conversation(
            loaded.chat(
                system,
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
        print(f"{name}: /help lists the commands.", flush=True)
        conversation.run()
