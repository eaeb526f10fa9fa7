"""What calls share: retry budgets, and pools that Insider has closed for a while."""
