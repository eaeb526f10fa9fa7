"""What calls share: the uses of rate limits, claims on content, and retry budgets; in memory or in a store."""
